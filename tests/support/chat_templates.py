"""Chat templates in the style of known families, and templates that attack."""

from __future__ import annotations

LLAMA_3 = """\
{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN_3 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(
        message.content.startswith('<tool_response>') and message.content.endswith('x')) %}
        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '{"name": "' ~ tool_call.name ~ '"}' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif loop.first or messages[loop.index0 - 1].role != "tool" %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS][" }}
            {%- for tool in tools %}
                {%- for key, val in tool.function.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
            {%- endfor %}
        {%- endif %}
        {{- "[INST]" + message["content"] + "[/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}
{%- for message in messages -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate') }}{%- endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{ '<start_of_turn>' + role + '\\n' }}
{%- if message['content'] is iterable and message['content'] is not string -%}
{%- for item in message['content'] -%}{%- if item['type'] == 'text' -%}{{ item['text'] | trim }}
{%- endif -%}{%- endfor -%}{%- else -%}{{ message['content'] | trim }}{%- endif -%}
{{ '<end_of_turn>\\n' }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""

PHI = """\
{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message
and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content']
+ '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role']
+ '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}
{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}
"""

DEEPSEEK = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(is_first=false, is_tool=false, system_prompt='', is_first_sp=true) %}
{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}
{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}
{%- else %}{% set ns.system_prompt = ns.system_prompt ~ '\\n\\n' ~ message['content'] %}{%- endif %}
{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}
{%- macro call(tool) %}{% for key in tool.arguments %}{{ tool.arguments[key] }}{% endfor %}
{%- endmacro %}
{%- for message in messages %}{% set content = message['content'] %}
{%- for tool in message['tool_calls'] %}{{ tool['type'] + call(tool['function']) }}{% endfor %}
{% generation %}{{ content }}{% endgeneration %}{%- endfor %}
"""

REAL = {"llama 3": LLAMA_3, "qwen 3": QWEN_3, "mistral": MISTRAL, "gemma": GEMMA, "phi": PHI,
        "deepseek": DEEPSEEK}

HOSTILE = {
    "llama drama": "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "class of a text": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class by subscript": "{{ ''['__class__'] }}",
    "class by escapes": "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "class by attr": "{{ ''|attr('__class__') }}",
    "class by attr in parts": "{{ ''|attr('_' ~ '_class_' ~ '_') }}",
    "class by a made name": "{% set k = '_' ~ '_class_' ~ '_' %}{{ messages[k] }}",
    "class by a made subscript": "{{ messages['_' ~ '_class_' ~ '_'] }}",
    "class by a name of a made name":
        "{% set a = '_' ~ '_class_' %}{% set b = a ~ '_' %}{% set c = b %}{{ messages[c] }}",
    "class by a loop over made names":
        "{% for k in ['_' ~ '_class'] %}{{ messages[k] }}{% endfor %}",
    "class by a macro": "{% macro m(k) %}{{ messages[k] }}{% endmacro %}{{ m('_' ~ '_init__') }}",
    "class by a macro's text":
        "{% macro t() %}_{% endmacro %}{% set k = t() %}{{ messages[k] }}",
    "class by a block": "{% set k %}_{{ '_class' }}{% endset %}{{ messages[k] }}",
    "class by a namespace": "{% set n = namespace(k='_' ~ 'x') %}{{ messages[n.k] }}",
    "class by join": "{{ messages[['_', 'class'] | join] }}",
    "class by formatting": "{{ messages['%c%cclass' % (95, 95)] }}",
    "globals of cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "globals of joiner": "{{ joiner.__init__.__globals__ }}",
    "cycler": "{{ cycler('a', 'b').next() }}",
    "joiner": "{{ joiner(', ')() }}",
    "lipsum": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "lipsum alone": "{{ lipsum(n=100000) }}",
    "self": "{{ self._TemplateReference__context }}",
    "self alone": "{{ self }}",
    "request": "{{ request.application }}",
    "config": "{{ config.items() }}",
    "get_flashed_messages": "{{ get_flashed_messages.func_globals }}",
    "frame of a generator": "{{ (messages | map('upper')).gi_frame.f_globals }}",
    "frame through a shadowed namespace":
        "{% set n = namespace() %}{% set n = messages | map('upper') %}{{ n.gi_frame }}",
    "namespace given another meaning": "{% macro namespace(x) %}{% endmacro %}{{ namespace(1) }}",
    "function's code": "{{ raise_exception.func_globals }}",
    "mro": "{{ messages.mro() }}",
    "map by attribute": "{{ messages | map(attribute='gi_frame') | list }}",
    "map to attr": "{{ messages | map('attr', 'x') | list }}",
    "selectattr by a hidden name": "{{ messages | selectattr('__class__') | list }}",
    "sort by a hidden name": "{{ messages | sort(attribute='gi_code.co_consts') }}",
    "groupby": "{{ messages | groupby('role') }}",
    "format that reaches in": "{{ '{0.gi_frame}'.format(messages) }}",
    "format of a made text": "{% set f = '{0' ~ '.x}' %}{{ f.format(messages) }}",
    "format filter": "{{ '%s' | format(messages) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from import": "{% from 'a' import b %}",
    "extends": "{% extends 'base.html' %}",
    "block": "{% block a %}{% endblock %}",
    "with": "{% with a = 1 %}{{ a }}{% endwith %}",
    "autoescape": "{% autoescape false %}{{ a }}{% endautoescape %}",
    "do": "{% do messages.clear() %}",
    "debug": "{% debug %}",
    "trans": "{% trans %}x{% endtrans %}",
    "call of an item": "{{ messages['x']() }}",
    "call of a call": "{{ range(1)() }}",
    "call of an unknown name": "{{ eval('1') }}",
    "unpacked arguments": "{{ range(*messages) }}",
    "unpacked keywords": "{{ dict(**messages) }}",
    "huge range": "{% for x in range(999999999) %}x{% endfor %}",
    "huge text": "{{ 'a' * 9999999999 }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "deep loops": "{% for a in b %}" * 12 + "{% endfor %}" * 12,
    "deep brackets": "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "long chain": "{{ a" + "~a" * 60_000 + " }}",
    "too large": "a" * (256 * 1024 + 1),
    "huge number": "{{ " + "9" * 5000 + " }}",
    "not closed": "{% for x in messages %}",
    "not Jinja": "{{ {% }}",
    "unknown tag": "{% exec 'id' %}",
    "unknown filter": "{{ messages | pprint }}",
    "unknown test": "{{ messages is callable }}",
}
