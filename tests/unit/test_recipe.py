"""What a recipe may say, and that a wrong one is named by file, key and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.core.digest import Digest
from edgekit.core.lock import Lock, encode_lock, parse_lock
from edgekit.core.recipe import MAX_RECIPE_BYTES, FolderSource, HubSource, parse_recipe
from edgekit.errors import LockError, RecipeError
from edgekit.exit_codes import ExitCode
from edgekit.operations.lock import load_lock, load_recipe, lock_path

GOOD = """\
# name = "commented out"
format = 1
name = "demo"
version = "1.0.0"
epoch = 2
sequence = 7
description = "say name = what you like"
digest = "sha384"
users = 2

[target]  # arch = "later"
arch = "x86_64"
glibc = "2.36"
python = "3.11"

[[model]]
name = "first"
context = 1024
license = "MIT"

[[model.variant]]
format = "gguf"
quantization = "Q8_0"
source = { folder = "../weights" }
files = ["a.gguf"]

[[model.variant]]
format = "gguf"
quantization = "Q4_0"
source = { hub = "someone/model", revision = "v1" }
files = [
  "b.gguf",
  "deep/c.gguf",
]

[[model]]
name = "second"
license = "MIT"
context = 512
variant = [
  { format = "safetensors", quantization = "F16", source.folder = "w", files = ["d"] },
  { format = "gguf", quantization = "Q8_0", source = { folder = "w" }, files = ["e"] },
]

[[model.canary]]
prompt = "which?"
answer = "yes"

[[engine]]
kind = "llama.cpp"
provider = "wheel"
package = "xllamacpp==1.0"

[[wheels]]
name = "tools"
requirements = ["numpy==2.0.0", "six==1.17.0"]

[[image]]
name = "box"
reference = "registry.example/box:1"
"""


def line_of(text: str, needle: str) -> int:
    """The number of the only line that holds this text."""
    found = [number for number, line in enumerate(text.splitlines(), 1) if needle in line]
    assert len(found) == 1, (needle, found)
    return found[0]


def complaint(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.encode(), file="r.toml")
    assert caught.value.exit_code == ExitCode.RECIPE
    return caught.value


def test_a_whole_recipe_is_read() -> None:
    recipe = parse_recipe(GOOD.encode(), file="r.toml")
    assert (recipe.name, recipe.epoch, recipe.sequence, recipe.users) == ("demo", 2, 7, 2)
    assert recipe.target.glibc == (2, 36)
    first, second = recipe.models
    assert [v.quantization for v in first.variants] == ["Q8_0", "Q4_0"]
    assert first.variants[0].source == FolderSource("../weights")
    assert first.variants[1].source == HubSource("someone/model", "v1")
    assert list(map(str, first.variants[1].files)) == ["b.gguf", "deep/c.gguf"]
    assert [v.format for v in second.variants] == ["safetensors", "gguf"]
    assert second.canaries[0].answer == "yes"
    assert recipe.engines[0].package == "xllamacpp==1.0"
    assert recipe.wheels[0].requirements == ("numpy==2.0.0", "six==1.17.0")
    assert recipe.images[0].reference == "registry.example/box:1"


def test_what_may_be_left_out_has_a_default() -> None:
    recipe = parse_recipe(
        b'format = 1\nname = "a"\nversion = "1.0.0"\nsequence = 1\n[target]\narch = "aarch64"\n',
        file="r.toml",
    )
    assert (recipe.epoch, recipe.users, recipe.digest_algorithm) == (1, 1, "sha384")
    assert (recipe.target.glibc, recipe.target.python) == ((2, 36), (3, 11))
    assert (recipe.models, recipe.engines, recipe.wheels, recipe.images) == ((), (), (), ())


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("bundles/*.toml")), ids=str)
def test_the_recipes_of_this_repository_are_right(path: Path) -> None:
    load_recipe(path)


# Old text, new text, the key that is complained about, and part of the complaint. The complaint's
# line is the one where `new` stands, or where `@` marks it.
WRONG: dict[str, tuple[str, str, str, str]] = {
    "unknown key on top": ("users = 2", "user = 2", "user", "unknown key"),
    "unknown table": ("[target]  #", "[unknown]\na = 1\n[target]  #", "unknown", "unknown key"),
    "unknown key in a table": (
        'python = "3.11"', 'pyhton = "3.11"', "target.pyhton", "unknown key"),
    "unknown key in the first model": (
        "context = 1024", "contxt = 1024", "model[0].contxt", "unknown key"),
    "unknown key in the second model": (
        "context = 512", "contxt = 512", "model[1].contxt", "unknown key"),
    "unknown key in the first variant": (
        'quantization = "Q8_0"\nsource', 'quantisation = "x"\nquantization = "Q8_0"\nsource',
        "model[0].variant[0].quantisation", "unknown key"),
    "unknown key in the second variant": (
        'quantization = "Q4_0"', 'quantization = "Q4_0"\nfoo = 1',
        "model[0].variant[1].foo", "unknown key"),
    "unknown key in an inline table": (
        'revision = "v1" }', 'revison = "v1" }',
        "model[0].variant[1].source.revison", "unknown key"),
    "unknown key in an inline array of tables": (
        'source.folder = "w", files = ["d"]', 'source.folder = "w", files = ["d"], zip = 1',
        "model[1].variant[0].zip", "unknown key"),
    "unknown key in the second of an inline array of tables": (
        'source = { folder = "w" }, files = ["e"]',
        'source = { folder = "w" }, files = ["e"], zip = 1',
        "model[1].variant[1].zip", "unknown key"),
    "unknown key behind a dotted key": (
        'source.folder = "w", files', 'source.folder = "w", source.foldr = "w", files',
        "model[1].variant[0].source.foldr", "unknown key"),
    "unknown key in quotes": ("users = 2", '"us ers" = 2', "us ers", "unknown key"),
    "unknown key in a canary": (
        'answer = "yes"', 'anwser = "no"\nanswer = "yes"', "model[1].canary[0].anwser",
        "unknown key"),
    "unknown key in an engine": ('provider = "wheel"', 'provider = "wheel"\nx = 1', "engine[0].x",
                                 "unknown key"),
    "unknown key in wheels": (
        'name = "tools"', 'name = "tools"\nx = 1', "wheels[0].x", "unknown key"),
    "unknown key in an image": ('name = "box"', 'name = "box"\nx = 1', "image[0].x", "unknown key"),
    "rate of no placement": (
        "context = 512", "context = 512\nmin_tokens_per_second = { tpu = 1 }",
        "model[1].min_tokens_per_second.tpu", "unknown key"),
    "rate of nothing": (
        "context = 512", "context = 512\nmin_tokens_per_second = { gpu = 0 }",
        "model[1].min_tokens_per_second.gpu", "0 is outside 1 to 100000"),
    "rate without a question": (
        "context = 1024", "context = 1024\nmin_tokens_per_second = { cpu = 3 }",
        "model[0].min_tokens_per_second",
        "only a model with the task chat and a [[model.canary]] has one"),
    "number for a text": (
        'name = "demo"', "name = 7", "name", "expected a string, found an integer"),
    "text for a number": ("epoch = 2", 'epoch = "2"', "epoch", "expected an integer"),
    "boolean for a number": ("users = 2", "users = true", "users", "found a boolean"),
    "float for a number": ("sequence = 7", "sequence = 7.0", "sequence", "found a float"),
    "table for a list": ("[[image]]", "[image]", "image", "expected a list, found a table"),
    "text for a list": ('files = ["a.gguf"]', 'files = "a.gguf"', "model[0].variant[0].files",
                        "expected a list"),
    "text for a table": ('source = { folder = "../weights" }', 'source = "../weights"',
                         "model[0].variant[0].source", "expected a table"),
    "number in a list of texts": ('"deep/c.gguf",', "7,", "model[0].variant[1].files.1",
                                  "expected a string"),
    "number in a list of tables": (
        "variant = [\n", "variant = [\n 1, # @\n", "model[1].variant[0]", "expected a table"),
    "date for a text": ('version = "1.0.0"', "version = 2026-01-01", "version", "found date"),
    "another format": ("format = 1", "format = 2", "format", "2 is outside 1 to 1"),
    "name with capitals": ('name = "demo"', 'name = "Demo"', "name", "does not match"),
    "name that is a path": ('name = "second"', 'name = "../x"', "model[1].name", "does not match"),
    "version of two numbers": ('version = "1.0.0"', 'version = "1.0"', "version", "does not match"),
    "sequence of zero": ("sequence = 7", "sequence = 0", "sequence", "outside 1 to"),
    "huge epoch": ("epoch = 2", "epoch = 9999999999", "epoch", "outside 1 to"),
    "too many users": ("users = 2", "users = 10001", "users", "outside 1 to 10000"),
    "tiny context": ("context = 512", "context = 255", "model[1].context", "outside 256"),
    "unknown digest": ('digest = "sha384"', 'digest = "md5"', "digest", "not one of"),
    "unknown architecture": ('arch = "x86_64"', 'arch = "riscv"', "target.arch", "not one of"),
    "glibc of one number": ('glibc = "2.36"', 'glibc = "2"', "target.glibc", "does not match"),
    "unknown format": ('{ format = "safetensors"', '{ format = "pickle"',
                       "model[1].variant[0].format", "not one of"),
    "unknown engine": ('kind = "llama.cpp"', 'kind = "ollama"', "engine[0].kind", "not one of"),
    "unknown provider": ('provider = "wheel"', 'provider = "docker"', "engine[0].provider",
                         "not one of"),
    "package without a version": ('"xllamacpp==1.0"', '"xllamacpp>=1.0"', "engine[0].package",
                                  "does not match"),
    "requirement without a version": ('"six==1.17.0"', '"six"', "wheels[0].requirements.1",
                                      "does not match"),
    "reference that is none": ('"registry.example/box:1"', '"no spaces please"',
                               "image[0].reference", "does not match"),
    "repository without an owner": ('hub = "someone/model"', 'hub = "model"',
                                    "model[0].variant[1].source.hub", "does not match"),
    "control character": ('answer = "yes"', 'answer = "\\u0007"', "model[1].canary[0].answer",
                          "control character"),
    "long license": ('license = "MIT"\n\n', f'license = "{"x" * 101}"\n\n', "model[0].license",
                     "longer than 100"),
    "path that climbs": ('files = ["a.gguf"]', 'files = ["../a.gguf"]',
                         "model[0].variant[0].files.0", "unsafe path"),
    "no files": ('files = ["a.gguf"]', "files = []", "model[0].variant[0].files",
                 "name at least one file"),
}


@pytest.mark.parametrize(("old", "new", "key", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_recipe_is_named_by_file_key_and_line(
    old: str, new: str, key: str, message: str
) -> None:
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    error = complaint(text)
    changed = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line not in GOOD.splitlines() and ("@" in line or "@" not in new)
    ]
    assert message in error.message
    assert str(error.where).startswith(f"r.toml, key {key}, line ")
    assert int(str(error.where).rpartition(" ")[2]) == changed[0]


# What is taken away, what is left in its place, the key that is missed, and what stands on the
# line that is named: the head of the table or the inline table it is missing from.
MISSING: dict[str, tuple[str, str, str, str]] = {
    "name on top": ('name = "demo"\n', "", "name", "# name = "),
    "sequence on top": ("sequence = 7\n", "", "sequence", "# name = "),
    "a whole table": (
        GOOD[GOOD.index("[target]") : GOOD.index("\n[[model]]")], "", "target", "# name = "),
    "architecture": ('arch = "x86_64"\n', "", "target.arch", "[target]"),
    "name of the second model": ('[[model]]\nname = "second"\n', "[[ model ]] # here\n",
                                 "model[1].name", "# here"),
    "format of the first variant": (
        '[[model.variant]]\nformat = "gguf"\nquantization = "Q8_0"',
        '[[ model . "variant" ]] # here\nquantization = "Q8_0"', "model[0].variant[0].format",
        "# here"),
    "quantization of the second variant": (
        '[[model.variant]]\nformat = "gguf"\nquantization = "Q4_0"',
        '[[model.variant]] # here\nformat = "gguf"', "model[0].variant[1].quantization", "# here"),
    "format in an inline table": ('format = "safetensors", ', "", "model[1].variant[0].format",
                                  'source.folder = "w"'),
    "folder and hub": (' hub = "someone/model", revision = "v1" ', "",
                       "model[0].variant[1].source.hub", "source = {}"),
    "answer": ('answer = "yes"\n', "", "model[1].canary[0].answer", "[[model.canary]]"),
    "name of an image": ('name = "box"\n', "", "image[0].name", "[[image]]"),
}


@pytest.mark.parametrize(("old", "new", "key", "there"), MISSING.values(), ids=MISSING.keys())
def test_a_missing_key_is_named_by_the_table_it_is_missing_from(
    old: str, new: str, key: str, there: str
) -> None:
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    error = complaint(text)
    assert error.message == "missing key"
    assert error.where == f"r.toml, key {key}, line {line_of(text, there)}"


@pytest.mark.parametrize(
    ("change", "key"),
    [(('name = "second"', 'name = "first"'), "model"), (("[[engine]]", "[[engin]]"), "engin")],
)
def test_rules_that_span_tables_are_checked_too(change: tuple[str, str], key: str) -> None:
    error = complaint(GOOD.replace(*change))
    assert f"key {key}" in str(error.where)


def test_models_without_an_engine_are_refused() -> None:
    start = GOOD.index("[[engine]]")
    text = GOOD[:start] + GOOD[GOOD.index("[[wheels]]") :]
    assert complaint(text).message == "a recipe with models needs an engine"


def test_keys_in_comments_and_texts_do_not_mislead() -> None:
    text = GOOD.replace('answer = "yes"', "answer = '''\ncontext = 1\n[[model]]\ncontext = 2\n'''")
    text = text.replace("context = 512", "# context = 1\ncontext = 5")
    error = complaint(text)
    assert error.where == f"r.toml, key model[1].context, line {line_of(text, 'context = 5')}"


@pytest.mark.parametrize(
    "data",
    [b"format = ", b"\xff\xfe", b"a = 1\na = 2", b"[[model]]\n[model]", b"\0", b"= 1", b'a = "'],
)
def test_bytes_that_are_not_toml_are_refused(data: bytes) -> None:
    with pytest.raises(RecipeError, match="not valid TOML") as caught:
        parse_recipe(data, file="r.toml")
    assert caught.value.where == "r.toml"
    assert caught.value.found


@pytest.mark.parametrize("data", [b"#" * (MAX_RECIPE_BYTES + 1), b"a=" + b"[" * 50_000])
def test_a_recipe_made_to_hurt_is_refused(data: bytes) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(data, file="r.toml")


# ------------------------------------------------------------------------------------------ locks


def write_pair(folder: Path, recipe: str, lock_of: str) -> Path:
    """A recipe with the lock of the same or of another recipe beside it."""
    path = folder / "demo.toml"
    path.write_text(recipe)
    lock = Lock(Digest.of(lock_of.encode()), (), (), ())
    lock_path(path).write_bytes(encode_lock(lock))
    return path


def test_the_lock_of_a_recipe_lies_beside_it(tmp_path: Path) -> None:
    path = write_pair(tmp_path, GOOD, GOOD)
    _, digest = load_recipe(path)
    assert load_lock(path, digest).recipe == digest
    assert lock_path(path) == tmp_path / "demo.lock.json"


def test_a_missing_lock_says_which_command_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "demo.toml"
    path.write_text(GOOD)
    with pytest.raises(LockError, match="has no lock") as caught:
        load_lock(path, load_recipe(path)[1])
    assert caught.value.exit_code == ExitCode.LOCK
    assert caught.value.hint == f"edgekit lock {path}"


def test_the_lock_of_an_older_recipe_is_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path, GOOD, GOOD + "\n")
    with pytest.raises(LockError, match="older recipe") as caught:
        load_lock(path, load_recipe(path)[1])
    assert caught.value.exit_code == ExitCode.LOCK
    assert caught.value.found
    assert caught.value.needed
    assert caught.value.found != caught.value.needed


def test_a_lock_that_lacks_what_the_recipe_names_is_stale() -> None:
    lock = Lock(Digest.of(b""), (), (), ())
    for ask in (
        lambda: lock.variant("m", 0), lambda: lock.wheelhouse("wheels:x"), lambda: lock.image("i")
    ):
        with pytest.raises(LockError, match="the lock has no") as caught:
            ask()
        assert caught.value.hint == "edgekit lock RECIPE"


@pytest.mark.parametrize(
    ("old", "new"),
    [("edgekit.lock/1", "edgekit.lock/2"), ('"images": []', '"images": {}'),
     ('"recipe": "sha384:', '"recipe": "md5:'), ('"variants": []', '"variants": [], "more": 1'),
     ('"variants": []', '"variants": [1]'), ("}", ""), ('"images": []', '"images": [1.5]'),
     ('"images": []', '"images": [], "images": []')],
)
def test_a_malformed_lock_names_its_file(old: str, new: str) -> None:
    text = encode_lock(Lock(Digest.of(b""), (), (), ())).decode()
    assert old in text
    with pytest.raises(LockError) as caught:
        parse_lock(text.replace(old, new, 1).encode(), file="x.lock.json")
    assert str(caught.value.where).startswith("x.lock.json")
    assert caught.value.exit_code == ExitCode.LOCK


def test_a_derived_model_has_a_name_of_its_own() -> None:
    derived = '\n[[derived]]\nname = "{}"\nmodelfile = "M"\n'
    recipe = parse_recipe((GOOD + derived.format("mine")).encode(), file="r.toml")
    assert [(one.name, one.modelfile) for one in recipe.derived] == [("mine", "M")]
    with pytest.raises(RecipeError, match="same name"):
        parse_recipe((GOOD + derived.format("first")).encode(), file="r.toml")
