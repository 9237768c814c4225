"""Templates whose answers are known from Go's text/template and from Ollama's own package.

`answers.json` has what both said; `python -m tests.templates.record PROGRAM` asks again, with the
program that `oracle/main.go` becomes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TALK = [
    {"Role": "system", "Content": "Be brief."},
    {"Role": "user", "Content": "Où?"},
    {"Role": "assistant", "Content": '<here> & "there"'},
    {"Role": "user", "Content": "Why\tnot\\?\n"},
]
DATA: dict[str, Any] = {
    "System": "Be brief.", "Empty": "", "Yes": True, "No": False, "None": None,
    "Messages": TALK, "Nothing": [], "Words": ["one", "two", "three"],
    "Map": {"b": "2", "a": "1", "c": {"d": "e<f>"}}, "Bare": {},
}

EXPRESSIONS = [
    # text, spaces, comments
    "", "plain", "a {{ .System }} b", "a {{- .System -}} b", "a \n\t{{- .System -}} \r\n b",
    "{{.System}}{{.System}}", "{{- .System}}", "{{.System -}}", "a{{/* no */}}b",
    "a {{- /* no */ -}} b", "a {{/* {{ x }} */ -}} b", "{{ `a}}b` }}", '{{ "a}}b" }}', "}} { {",
    'a {{- " b " -}} c', "{{\n.System\n}}", "{{ .System }}\n{{- .System }}\n", "{{- 3}}", "{{-3}}",
    "{{3 -}}  x", "{{ -3 }}", "{{ +7 }}",
    # values
    "{{ . | len }}", "{{ .Yes }} {{ .No }}", "{{ true }}{{ false }}", '{{ "a\\n\\t\\"\\\\" }}',
    '{{ "\\u00e9" }}', "{{ `a\\n` }}", "{{ .None }}", "{{ .Missing }}", "{{ .Missing.More }}",
    "{{ .Map.a }}", "{{ .Map.c.d }}", "{{ .Map.x }}", "{{ .Map.x.y }}", "{{ $.Map.a }}",
    "{{ $ | len }}", "{{ (index .Messages 1).Content }}", "{{ (.Map).a }}", "{{ (.Map.c).d }}",
    # conditions
    "{{ if .Yes }}y{{ end }}", "{{ if .No }}y{{ else }}n{{ end }}", "{{ if .Empty }}y{{ end }}n",
    "{{ if .Nothing }}y{{ else }}n{{ end }}", "{{ if .Bare }}y{{ else }}n{{ end }}",
    "{{ if .None }}y{{ else }}n{{ end }}", "{{ if 0 }}y{{ else }}n{{ end }}",
    "{{ if 1 }}y{{ else }}n{{ end }}", "{{ if .Missing }}y{{ else if .Yes }}z{{ else }}n{{ end }}",
    "{{ if .No }}1{{ else if .Empty }}2{{ else if .Nothing }}3{{ else }}4{{ end }}",
    "{{ if .No }}1{{ else if .Yes }}2{{ else if .Yes }}3{{ end }}",
    "{{ if $x := .Yes }}{{ $x }}{{ end }}", "{{ if $x := .No }}{{ else }}{{ $x }}{{ end }}",
    "{{ with .Map }}{{ .a }}{{ end }}", "{{ with .Nothing }}y{{ else }}{{ .System }}{{ end }}",
    "{{ with $x := .Map }}{{ $x.b }}{{ .a }}{{ $.System }}{{ end }}",
    # functions
    '{{ eq .System "Be brief." }}', "{{ eq 1 2 3 1 }}", "{{ eq .Yes true }}", "{{ ne 1 2 }}",
    "{{ eq .None nil }}", '{{ eq .Missing "x" }}', '{{ ne .Missing "x" }}',
    '{{ eq "x" .Missing "x" }}', "{{ lt 1 2 }}{{ le 2 2 }}{{ gt 1 2 }}{{ ge 2 2 }}",
    '{{ lt "a" "b" }}{{ lt "é" "f" }}', "{{ and 1 0 2 }}", "{{ and 1 2 3 }}", '{{ or 0 "" 2 }}',
    "{{ or .No .Empty }}|", "{{ and .Yes .System }}", "{{ not .Yes }}{{ not .Nothing }}",
    "{{ and .No (index .Nothing 5) }}", "{{ or .Yes (index .Nothing 5) }}",
    '{{ len .Messages }}{{ len .System }}{{ len "é" }}{{ len .Map }}',
    "{{ index .Words 1 }}", '{{ index .Map "b" }}', '{{ index .Map "x" }}',
    '{{ index .Map "c" "d" }}',
    "{{ len (slice .Words 1) }}", "{{ index (slice .Words 1 2) 0 }}", '{{ slice "abcdef" 2 4 }}',
    "{{ slice .System 3 }}", "{{ slice .System 0 0 }}|", "{{ len (slice .Words) }}",
    '{{ printf "%s-%d-%v-%v%%" "a" 5 true 7 }}', '{{ printf "%d" "a" }}',
    '{{ printf "%s" 5 }}', '{{ printf "%s" true }}', '{{ printf "%s|%v" .None .None }}',
    '{{ printf "plain" }}', '{{ print 1 2 "x" 3 4 }}', '{{ print "a" "b" true false }}',
    "{{ print }}|", "{{ print .None .None }}", "{{ json .Map }}", "{{ json .Words }}",
    "{{ json .System }}", "{{ json .Messages }}", "{{ json 5 }}{{ json true }}{{ json .None }}",
    '{{ json "\\u2028<>&\\n\\t" }}', "{{ json (index .Messages 3).Content }}",
    # pipelines and parentheses
    "{{ .System | len }}", '{{ .System | printf "%s!" }}', '{{ "b" | printf "%s%s" "a" }}',
    "{{ .Words | len | eq 3 }}", "{{ (len .Words) }}", "{{ ((len (.Words))) }}",
    "{{ eq (len .Words) 3 }}", "{{ and (eq 1 1) (not (eq 1 2)) }}", "{{ .No | or .Yes }}",
    "{{ .Yes | and .No }}", "{{ .Yes | and .System }}",
    '{{ printf "%s" (printf "%d" (len .Words)) | len }}',
    # variables
    "{{ $x := 5 }}{{ $x }}", "{{ $x := 5 }}{{ if true }}{{ $x = 6 }}{{ end }}{{ $x }}",
    "{{ $x := 5 }}{{ if true }}{{ $x := 6 }}{{ $x }}{{ end }}{{ $x }}",
    "{{ $x := 5 }}{{ $x := $x }}{{ $x }}", "{{ $m := .Map }}{{ $m.a }}{{ $m.c.d }}",
    "{{ $x:=.Yes }}{{ $x }}", "{{ $x := .Words | len }}{{ $x }}",
    '{{ $s := "" }}{{ range .Words }}{{ $s = printf "%s%s" $s . }}{{ end }}{{ $s }}',
    # range
    "{{ range .Words }}[{{ . }}]{{ end }}", "{{ range .Nothing }}x{{ else }}{{ .System }}{{ end }}",
    "{{ range .None }}x{{ else }}none{{ end }}", "{{ range .Missing }}x{{ else }}none{{ end }}",
    "{{ range $w := .Words }}{{ $w }}{{ . }}{{ end }}",
    "{{ range $i, $w := .Words }}{{ $i }}{{ $w }}{{ end }}",
    "{{ range $k, $v := .Map }}{{ $k }}{{ end }}",
    "{{ range $i, $_ := .Messages }}{{ $i }}{{ .Role }}{{ $.System }}{{ end }}",
    '{{ range .Messages }}{{ if eq .Role "user" }}{{ continue }}{{ end }}{{ .Role }}{{ end }}',
    '{{ range .Messages }}{{ if eq .Role "user" }}{{ break }}{{ end }}{{ .Role }}{{ end }}',
    ('{{ range .Words }}{{ range $.Words }}{{ if eq . "two" }}{{ break }}{{ end }}'
     '{{ . }}{{ end }};{{ end }}'),
    "{{ range .Words }}{{ $x := . }}{{ $x }}{{ end }}",
    ("{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    "{{- if $last }}LAST{{ else }}.{{ end }}{{ end }}"),
    "{{ range $i, $_ := .Words }}{{ if gt $i 0 }}, {{ end }}{{ . }}{{ end }}",
    '{{ range $a, $b := .Words }}{{ $b = "x" }}{{ $b }}{{ end }}',
    "{{ with .Words }}{{ range . }}{{ . }}{{ end }}{{ end }}",
    # what Go itself refuses, when it reads or when it runs
    "{{", "{{ .System", "{{ if }}{{ end }}", "{{ if .Yes }}", "{{ end }}", "{{ else }}",
    "{{ if .Yes }}{{ else }}{{ else }}{{ end }}", "{{ nope }}", "{{ $x }}", "{{ .System | 5 }}",
    "{{ (.System }}", "{{ .System) }}", '{{ "a }}', "{{ /* x */ }}", "{{/* x }}", "{{ nil }}",
    "{{ break }}", "{{ 1 2 }}", "{{ .System .System }}", "{{ len }}", "{{ eq 1 }}",
    "{{ not 1 2 }}", '{{ eq 1 "1" }}', '{{ lt 1 "1" }}', "{{ lt true false }}", "{{ len 5 }}",
    "{{ len .None }}", "{{ index .Words 3 }}", "{{ index .Words -1 }}", "{{ index .None 1 }}",
    '{{ index .Words "a" }}', "{{ index .Map 1 }}", "{{ slice .Words 2 1 }}",
    "{{ slice .Words 9 }}",
    "{{ slice .Map 1 }}", "{{ range 5.5 }}{{ end }}",
    "{{ .System.Name }}", "{{ .Yes.Name }}", "{{ printf 5 }}", "{{ .. }}", "{{ true.Name }}",
    "{{ if .Yes }}{{ $y := 1 }}{{ end }}{{ $y }}", '{{ "a""b" }}', '{{ .System"b" }}',
    "{{ . ! }}", '{{ "\\z" }}', "{{ 5 | len }}", "{{ $x = 5 }}",
    "{{ range $a, $b, $c := .Words }}{{ end }}",
    "{{ with .Yes }}{{ else if .No }}{{ end }}",
]  # fmt: skip

_CHATML = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
TEMPLATES = [
    # turns
    "{{ .Prompt }}", "{{ .System }} {{ .Prompt }}", "{{ .Prompt }}{{ .Response }}", _CHATML,
    "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }} [/INST] {{ .Response }}</s>",
    "{{ .System }}|{{ .Prompt }}|{{ .Response }}|after {{ .Prompt }}",
    "{{ if .Prompt }}U:{{ .Prompt }} A:{{ .Response }} never{{ end }} nor this {{ .System }}",
    "{{ with .Prompt }}{{ . }}{{ end }}{{ if .Response }}{{ .Response }}!{{ end }}?",
    "{{ .Prompt }}{{ .Response | len }}{{ .System }}",
    "{{ if .System }}S{{ .System }}{{ else if .Prompt }}P{{ .Prompt }}{{ end }}R",
    "{{ .Prompt }}{{ $r := .Response }}{{ $r }}|",
    "{{ .Prompt }}{{ $.Response }}|",
    "{{ .Prompt }} {{ .Think }}{{ .IsThinkSet }}{{ .ThinkLevel }}",
    "no variables at all",
    "{{ if .Prompt }}{{ if .System }}{{ .Response }}x{{ end }}y{{ end }}z",
    '{{ printf "%s/%s" .Prompt .System }} {{ printf "%s%s" .System .Response }}x',
    '{{ .Prompt }} {{ (printf "%s" .Response) }} {{ .System }}',
    # all messages at once
    "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>",
    "{{- range $i, $m := .Messages }}{{ $i }}{{ $m.Role }}: {{ $m.Content }}\n{{- end }}",
    ('{{ .System }}//{{ range .Messages }}{{ if ne .Role "system" }}{{ .Content }};'
     '{{ end }}{{ end }}'),
    ("{{- if .System }}<|start|>system<|sep|>{{ .System }}<|eot|>{{ end }}\n"
    "{{- range $i, $_ := .Messages }}\n"
    "{{- $last := eq (len (slice $.Messages $i)) 1 }}\n"
    '{{- if eq .Role "user" }}<|start|>user<|sep|>{{ .Content }}<|eot|>\n'
    '{{- else if eq .Role "assistant" }}<|start|>assistant<|sep|>{{ .Content }}'
    "{{- if not $last }}<|eot|>{{ end }}\n"
    "{{- end }}\n"
    '{{- if and (ne .Role "assistant") $last }}<|start|>assistant<|sep|>{{ end }}\n'
    "{{- end }}"),
    ("{{ if .Messages }}{{ range .Messages }}{{ .Role }}={{ .Content }} {{ end }}"
    "{{ else }}{{ .Prompt }}{{ end }}{{ .Response }}"),
    ('{{ $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}'
    "{{ if not $system }}{{ $system = .Content }}{{ else }}"
    '{{ $system = printf "%s\\n\\n%s" $system .Content }}{{ end }}'
    '{{ else if eq .Role "user" }}[{{ if $system }}{{ $system }}: {{ $system = "" }}{{ end }}'
    "{{ .Content }}]"
    "{{ else }}{{ .Content }}{{ end }}{{ end }}"),
    "{{ len .Messages }}{{ (index .Messages 0).Role }}",
    ("{{ range .Messages }}{{ .Thinking }}{{ .ToolName }}{{ .ToolCallID }}{{ len .ToolCalls }}"
    "{{ range .ToolCalls }}{{ .Function.Name }}{{ json .Function.Arguments }}{{ end }}{{ end }}"),
    ("{{ if .Tools }}{{ range .Tools }}{{ json . }}{{ end }}{{ else }}no tools{{ end }}"
    "{{ range .Messages }}{{ .Content }}{{ end }}"),
    "{{ json .Tools }}{{ .Tools }}{{ range .Messages }}{{ json .ToolCalls }}{{ end }}",
    "{{ .Prompt }}|{{ .Suffix }}|{{ range .Messages }}{{ .Content }}{{ end }}",
    "{{- range .Messages }}{{ if .ToolCalls }}x{{ else }}{{ json .Content }}{{ end }}{{ end }}",
    "{{ with index .Messages 0 }}{{ .Role }}{{ end }}{{ $.System }}",
    ("{{ .IsThinkSet }}{{ if and .IsThinkSet (not .Think) }}/no_think{{ end }}"
    "{{ range .Messages }}{{ .Content }}{{ end }}"),
    # a text and its suffix
    "{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ else }}{{ .Prompt }}{{ end }}",
    "[SUFFIX]{{ .Suffix }}[PREFIX] {{ .Prompt }}",
    ("{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else if .Messages }}"
    "{{ range .Messages }}{{ .Role }}{{ .Content }}{{ end }}{{ end }}"),
]  # fmt: skip

CONVERSATIONS = ["u", "su", "s", "a", "uu", "uau", "suau", "sua", "usu", "ssuu", "aua", "uaau",
    "uas", "eu", "ue", "se"]
"""Roles: system, user, assistant; an `e` is a user's message without a text."""


def messages(conversation: str) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant", "e": "user"}
    return [
        {"role": names[letter], "content": "" if letter == "e" else f"{letter}{number} é<x>"}
        for number, letter in enumerate(conversation)
    ]


def questions() -> Iterator[dict[str, Any]]:
    """What the oracle is asked."""
    for template in EXPRESSIONS:
        yield {"template": template, "data": DATA}
    for template in TEMPLATES:
        for conversation in CONVERSATIONS:
            yield {
                "template": template, "messages": messages(conversation),
                "think_set": len(conversation) == 2,
            }
        if ".Suffix" in template:
            yield {"template": template, "prompt": "def f(", "suffix": "return"}
