"""The syntax tree of a chat template against a list of what real templates need.

Real ones loop over messages and print their fields; the attacks (CVE-2024-34359 and its kin) walk
from a value to Python's own objects, by attributes, by subscripts or through filters. Subscripts
are the hard part, since jinja2 looks for an attribute where it finds no item: a name used as one
must not be able to hold a text that the template puts together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jinja2 import nodes

MAX_NODES = 40_000
MAX_DEPTH = 64
MAX_LOOP_DEPTH = 8
MAX_INTEGER = 1_000_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NODES = _words(
    "Add And Assign AssignBlock Break Call CallBlock Compare Concat CondExpr Const Continue Dict"
    " Div Filter FilterBlock FloorDiv For Getattr Getitem If Keyword List Macro Mod Mul NSRef Name"
    " Neg Not Operand Or Output Pair Pos Slice Sub Template TemplateData Test Tuple"
)
_METHODS = _words(
    "append capitalize count endswith find get index items keys lower lstrip pop removeprefix"
    " removesuffix replace rstrip split splitlines startswith strip title upper values"
)
_FIELDS = _words(
    # of `loop`
    "changed depth depth0 first index0 last length nextitem previtem revindex revindex0"
    # of messages, tools, their parameters and documents, as templates of known families read them
    " action additionalProperties anyOf allOf args arguments audio audio_url blocks call call_id"
    " calls citation_mode citations code content content_type current_date current_location data"
    " date default description documents document enum examples file filename format function"
    " function_call id image image_url images input is_error json_schema maximum minimum mime_type"
    " model name nullable observation oneOf output outputs parameter_definitions parameters parts"
    " plan prefix properties query reasoning reasoning_content reasoning_details reasoning_effort"
    " recipient refs required response result results return returns role safety_mode schema"
    " signature source status strict system text thinking thought timestamp title token tool"
    " tool_call tool_call_id tool_calls tool_name tool_outputs tool_plan tool_responses"
    " tool_results tools type union url user value video video_url weight"
)
_FILTERS = _words(
    "abs batch capitalize count d default dictsort escape e first float from_json fromjson indent"
    " int items join last length list lower map max min reject rejectattr replace reverse round"
    " safe select selectattr slice sort string sum title tojson trim truncate unique upper"
    " wordcount"
)
_TESTS = _words(
    "== != > >= < <= eq equalto ne ge greaterthan gt le lessthan lt boolean defined divisibleby"
    " even false float in integer iterable lower mapping none number odd sameas sequence string"
    " true undefined upper"
)
_FUNCTIONS = _words("dict namespace raise_exception range strftime_now caller")
_NAMES_REFUSED = _words(
    "cycler joiner lipsum self super request config url_for get_flashed_messages session g"
    " application varargs kwargs"
)
_BINDING = (
    nodes.Assign, nodes.AssignBlock, nodes.For, nodes.Keyword, nodes.Macro, nodes.Call,
    nodes.CallBlock,
)
_FIELD_TEXT = re.compile(r"\{(?:[A-Za-z][A-Za-z0-9_]{0,40}|[0-9]{0,2})\}|\{\{|\}\}|[^{}]")


def template_problem(tree: nodes.Template) -> str | None:
    """The first thing in a template that is not on the lists above, or None."""
    return _Scan(tree).problem()


class _Scan:
    """One walk over a syntax tree; `problem` is the first thing that is not allowed."""

    def __init__(self, tree: nodes.Template) -> None:
        self._tree = tree
        self._namespaces: set[str] = set()
        self._others: set[str] = set()
        self._macros: dict[str, list[nodes.Macro]] = {}
        self._texts: set[str] = set()

    def problem(self) -> str | None:
        waiting: list[tuple[nodes.Node, int, int]] = [(self._tree, 0, 0)]
        flat: list[nodes.Node] = []
        while waiting:
            node, depth, loops = waiting.pop()
            loops += isinstance(node, nodes.For)
            flat.append(node)
            if depth > MAX_DEPTH or loops > MAX_LOOP_DEPTH or len(flat) > MAX_NODES:
                return "it is nested too deeply or too long"
            waiting += [(child, depth + 1, loops) for child in node.iter_child_nodes()]
        for node in flat:
            self._learn_name(node)
        self._namespaces -= self._others
        self._learn_texts([node for node in flat if isinstance(node, _BINDING)])
        return next(filter(None, map(self._node_problem, flat)), None)

    def _learn_name(self, node: nodes.Node) -> None:
        """Which names are namespaces and nothing else, and which are macros."""
        if isinstance(node, nodes.Assign):
            if _is_call(node.node, "namespace") and isinstance(node.target, nodes.Name):
                self._namespaces.add(node.target.name)
            elif not isinstance(node.target, nodes.NSRef):
                self._others |= _bound(node.target)
        elif isinstance(node, (nodes.AssignBlock, nodes.For)):
            self._others |= _bound(node.target)
        elif isinstance(node, (nodes.Macro, nodes.CallBlock)):
            self._others |= {argument.name for argument in node.args}
            if isinstance(node, nodes.Macro):
                self._others.add(node.name)
                self._macros.setdefault(node.name, []).append(node)

    def _learn_texts(self, bindings: list[nodes.Node]) -> None:
        """Which names can hold a text that the template puts together, through other names too."""
        known = -1
        while known != len(self._texts):
            known = len(self._texts)
            for node in bindings:
                self._learn_text(node)

    def _learn_text(self, node: nodes.Node) -> None:
        if isinstance(node, (nodes.Assign, nodes.AssignBlock, nodes.For)):
            value = node.iter if isinstance(node, nodes.For) else node
            if self._makes_text(value):
                self._texts |= _bound(node.target)
        elif isinstance(node, nodes.Keyword) and self._makes_text(node.value):
            self._texts.add(node.key)
        elif isinstance(node, nodes.Macro):
            self._learn_arguments(node.args[len(node.args) - len(node.defaults) :], node.defaults)
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
            for macro in self._macros.get(node.node.name, ()):
                self._learn_arguments(macro.args, node.args)
        elif isinstance(node, nodes.CallBlock):
            self._texts |= {argument.name for argument in node.args}

    def _learn_arguments(self, names: list[nodes.Name], values: list[nodes.Expr]) -> None:
        pairs = zip(names, values, strict=False)
        self._texts |= {name.name for name, value in pairs if self._makes_text(value)}

    def _node_problem(self, node: nodes.Node) -> str | None:
        kind = type(node).__name__
        if kind not in _NODES:
            return f"it uses {kind.lower()}"
        check = getattr(self, f"_check_{kind.lower()}", None)
        return check(node) if check is not None else None

    def _check_name(self, node: nodes.Name) -> str | None:
        if node.name in _NAMES_REFUSED or "__" in node.name:
            return f"it uses the name {node.name[:60]!r}"
        if node.ctx != "load" and node.name in _FUNCTIONS:
            return f"it gives the name {node.name!r} another meaning"
        return None

    def _check_macro(self, node: nodes.Macro) -> str | None:
        if node.name in _FUNCTIONS or "__" in node.name:
            return f"it gives the name {node.name[:60]!r} another meaning"
        return None

    def _check_const(self, node: nodes.Const) -> str | None:
        if isinstance(node.value, str) and "__" in node.value:
            return f"it has the text {node.value[:60]!r}"
        if isinstance(node.value, int) and abs(node.value) > MAX_INTEGER:
            return f"it has a number above {MAX_INTEGER}"
        return None

    def _check_getattr(self, node: nodes.Getattr) -> str | None:
        if self._attribute_allowed(node):
            return None
        return f"it reads the attribute {node.attr[:60]!r}"

    def _attribute_allowed(self, node: nodes.Getattr) -> bool:
        if node.attr.startswith("_") or "__" in node.attr:
            return False
        if isinstance(node.node, nodes.Name) and node.node.name in self._namespaces:
            return True
        return node.attr in _FIELDS or node.attr in _METHODS

    def _check_nsref(self, node: nodes.NSRef) -> str | None:
        if node.name not in self._namespaces or node.attr.startswith("_") or "__" in node.attr:
            return f"it sets the attribute {node.attr[:60]!r}"
        return None

    def _check_getitem(self, node: nodes.Getitem) -> str | None:
        """jinja2 falls back from items to attributes, so a subscript may reach as far as those."""
        if isinstance(node.arg, nodes.Const):
            text = str(node.arg.value)
            return f"it reads the item {text[:60]!r}" if text.startswith("_") else None
        if isinstance(node.arg, nodes.Slice) or self._is_harmless_index(node.arg):
            return None
        return "it reads an item by a name that it makes up"

    def _is_harmless_index(self, node: nodes.Node) -> bool:
        if isinstance(node, nodes.Name):
            return node.name not in self._texts
        if isinstance(node, nodes.Getattr):
            return node.attr not in self._texts
        if isinstance(node, nodes.Const):
            return isinstance(node.value, int)
        if isinstance(node, nodes.Filter):
            return node.name in ("length", "count", "int")
        if isinstance(node, (nodes.Neg, nodes.Add, nodes.Sub, nodes.Mod)):
            return all(self._is_harmless_index(child) for child in node.iter_child_nodes())
        return False

    def _makes_text(self, node: nodes.Node) -> bool:
        """Whether a value can be text put together here, rather than read from the input."""
        waiting = [node]
        while waiting:
            item = waiting.pop()
            if self._is_text(item):
                return True
            if isinstance(item, nodes.Assign):
                waiting.append(item.node)
            elif isinstance(item, nodes.Getitem):
                constant = isinstance(item.arg, nodes.Const)
                waiting += [item.node] if constant else [item.node, item.arg]
            elif isinstance(item, nodes.CondExpr):
                waiting += [part for part in (item.expr1, item.expr2) if part is not None]
            elif isinstance(item, nodes.Call) and isinstance(item.node, nodes.Getattr):
                waiting += [item.node.node, *(item.args if item.node.attr != "get" else ())]
            elif not isinstance(item, (nodes.Test, nodes.Compare)):  # these are true or false
                waiting += item.iter_child_nodes()
        return False

    def _is_text(self, node: nodes.Node) -> bool:
        if isinstance(node, nodes.Const):
            return isinstance(node.value, str)
        if isinstance(node, nodes.Name):
            return node.name in self._texts
        if isinstance(node, nodes.Getattr):
            return node.attr in self._texts
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
            return node.node.name in self._macros or node.node.name == "caller"
        return isinstance(node, (nodes.AssignBlock, nodes.Concat, nodes.TemplateData))

    def _check_mod(self, node: nodes.Mod) -> str | None:
        return "it formats text by %" if self._makes_text(node.left) else None

    def _check_call(self, node: nodes.Call) -> str | None:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            return "it calls with unpacked arguments"
        callee = node.node
        if isinstance(callee, nodes.Name):
            known = callee.name in _FUNCTIONS or callee.name in self._macros
            return None if known else f"it calls {callee.name[:60]!r}"
        if not isinstance(callee, nodes.Getattr):
            return "it calls what an expression gives"
        if callee.attr == "format":
            return _format_problem(callee.node)
        return None if callee.attr in _METHODS else f"it calls the method {callee.attr[:60]!r}"

    def _check_filter(self, node: nodes.Filter) -> str | None:
        if node.name not in _FILTERS:
            return f"it uses the filter {node.name[:60]!r}"
        return self._named_argument_problem(node)

    def _check_test(self, node: nodes.Test) -> str | None:
        return None if node.name in _TESTS else f"it uses the test {node.name[:60]!r}"

    def _named_argument_problem(self, node: nodes.Filter) -> str | None:
        """Names of attributes, filters and tests reach a filter as plain allowed text only."""
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            return "it calls with unpacked arguments"
        attributes = [pair.value for pair in node.kwargs if pair.key == "attribute"]
        others: list[nodes.Expr] = []
        if node.name in ("selectattr", "rejectattr"):
            attributes, others = attributes + node.args[:1], node.args[1:2]
        elif node.name in ("map", "select", "reject"):
            others = node.args[:1]
        elif node.name in ("join", "min", "max", "sort", "sum", "unique"):
            attributes += node.args[1:]
        for argument in attributes:
            if not _is_field_path(argument):
                return f"it gives {node.name} an attribute that is not on the list"
        for argument in others:
            if not _is_word(argument, _FILTERS | _TESTS):
                return f"it gives {node.name} a name that is not on the list"
        return None


def _format_problem(receiver: nodes.Node) -> str | None:
    """`'{} of {}'.format(a, b)` is harmless as long as no field reaches into its value."""
    if isinstance(receiver, nodes.Const) and isinstance(receiver.value, str):
        rest = _FIELD_TEXT.sub("", receiver.value)
        return None if not rest else "it formats text with fields that reach into values"
    return "it formats text that is not written out"


def _bound(target: nodes.Node) -> set[str]:
    names = {node.name for node in target.find_all(nodes.Name)}
    names |= {target.name} if isinstance(target, nodes.Name) else set()
    return names | ({target.attr} if isinstance(target, nodes.NSRef) else set())


def _is_call(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and (
        node.node.name == name
    )


def _is_word(node: nodes.Node, allowed: Iterable[str]) -> bool:
    return isinstance(node, nodes.Const) and node.value in allowed


def _is_field_path(node: nodes.Node) -> bool:
    if not isinstance(node, nodes.Const):
        return False
    if isinstance(node.value, int) or node.value is None:
        return True
    return isinstance(node.value, str) and all(
        part in _FIELDS or part.isdigit() for part in node.value.split(".")
    )
