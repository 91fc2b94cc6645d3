import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, model_validator

from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings, as_options, load, merge, parse_override, read_yaml, validate


class Blur(Settings):
    name: Literal["blur"]
    sigma: tuple[float, float] = (0.0, 1.0)


class Noise(Settings):
    name: Literal["noise"]
    sigma: float = Field(0.1, ge=0)
    seeds: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _loud_enough(self) -> "Noise":
        if self.sigma == 0:
            raise ValueError("noise without a sigma")
        return self


Step = Annotated[Blur | Noise, Field(discriminator="name")]


class Nested(Settings):
    rate: float = 1.0
    count: int | None = None


class Recipe(Settings):
    size: int
    nested: Nested = Nested()
    steps: tuple[Step, ...] = ()
    named: dict[Annotated[str, Field(pattern="^[a-z]+$")], Step] = Field(default_factory=dict)
    plain: tuple[Nested, ...] = ()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def complaint(path: Path, text: str, *overrides: str) -> str:
    """What loading says of a wrong file, without the folder."""
    with pytest.raises(BadInput) as error:
        load(Recipe, write(path, text), overrides=overrides)
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix(f"{path.parent}/")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.yaml"


def test_mappings_merge_and_all_else_replaces() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [5]}, "e": None}) == {"a": {"b": 1, "c": [5]}, "d": 3, "e": None}
    assert merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert merge({"a": 2}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}, "merging must not change what is merged"


def test_later_files_and_then_overrides_win(tmp_path: Path) -> None:
    first = write(tmp_path / "1.yaml", "size: 1\nnested: {rate: 2.0, count: 3}\n")
    second = write(tmp_path / "2.yaml", "nested: {rate: 4.0}\n")
    loaded = load(Recipe, first, second, overrides=["size=7", "nested.count=null", "size=8"])
    assert loaded == Recipe(size=8, nested=Nested(rate=4.0))


def test_an_empty_file_holds_no_settings(file: Path) -> None:
    assert read_yaml(write(file, "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=[1, 2.5]", {"a": {"b": {"c": [1, 2.5]}}}),
        ("a=", {"a": None}),
        ("a=b=c", {"a": "b=c"}),
        ("a={b: 1}", {"a": {"b": 1}}),
    ],
)
def test_overrides_are_keys_and_yaml(text: str, value: Any) -> None:
    assert parse_override(text) == value


@pytest.mark.parametrize("text", ["a", "=1", "a=[1", "a={", ""])
def test_odd_overrides_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"^--set "):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size: 1\nnested:\n  rate: 1\n  speed: 2\n", "a.yaml:4: nested.speed: unknown key; it holds 2"),
        ("size: x\n", "a.yaml:1: size: Input should be a valid integer"),
        ("size: 1\nnested: {rate: .nan}\n", "a.yaml:2: nested.rate: Input should be a finite number; it holds nan"),
        ("nested:\n  rate: 1\n", "a.yaml: size: missing, expected a value"),
        ("size: 1\nnested: 3\n", "a.yaml:2: nested: Input should be a valid dictionary"),
        ("size: 1\nplain:\n- rate: 1\n- rate: no number\n", "a.yaml:4: plain.1.rate: Input should be a valid number"),
        ("size: 1\n1: 2\n", "a.yaml:2: 1: Keys should be strings"),
    ],
)
def test_wrong_values_are_named_by_file_line_and_key(file: Path, text: str, expected: str) -> None:
    assert complaint(file, text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- {name: blur}\n- name: noise\n  sigma: -1\n", "a.yaml:5: steps.1.sigma: Input should be greater than"),
        ("- name: noise\n  seeds: [1, two]\n", "a.yaml:4: steps.0.seeds.1: Input should be a valid integer"),
        ("- name: noise\n  width: 3\n", "a.yaml:4: steps.0.width: unknown key; it holds 3"),
        ("- {name: blur}\n- name: glow\n", "a.yaml:4: steps.1.name: expected one of blur, noise; it holds 'glow'"),
        ("- sigma: 1\n", "a.yaml:3: steps.0.name: missing, expected a value"),
        ("- name: noise\n  sigma: 0\n", "a.yaml:3: steps.0: noise without a sigma"),
    ],
)
def test_errors_inside_a_list_of_named_settings(file: Path, text: str, expected: str) -> None:
    assert complaint(file, f"size: 1\nsteps:\n{text}").startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  one: {name: blur}\n  two:\n    name: noise\n    sigma: -1\n", "a.yaml:6: named.two.sigma: "),
        ("  one:\n    name: noise\n    width: 1\n", "a.yaml:5: named.one.width: unknown key; it holds 1"),
        ("  one: {name: noise, sigma: 0}\n", "a.yaml:3: named.one: noise without a sigma"),
        ("  One: {name: blur}\n", "a.yaml:3: named.One: String should match pattern"),
    ],
)
def test_errors_inside_a_mapping_of_named_settings(file: Path, text: str, expected: str) -> None:
    assert complaint(file, f"size: 1\nnamed:\n{text}").startswith(expected)


def test_of_several_files_the_one_that_holds_the_key_is_named(tmp_path: Path) -> None:
    shared = write(tmp_path / "dataset.yaml", "size: 1\nnested:\n  rate: fast\n")
    own = write(tmp_path / "network.yaml", "nested:\n  count: 2\n")
    with pytest.raises(BadInput, match=r"dataset\.yaml:3: nested\.rate: .*; it holds 'fast'"):
        load(Recipe, shared, own)
    write(own, "nested:\n  rate: slow\n")
    with pytest.raises(BadInput, match=r"network\.yaml:2: nested\.rate: .*; it holds 'slow'"):
        load(Recipe, shared, own)


def test_a_wrong_override_is_named_rather_than_a_file(file: Path) -> None:
    assert complaint(file, "size: 1\n", "size=x").startswith("--set size=x: size: ")
    assert complaint(file, "size: 1\n", "nested={rate: x}").startswith("--set nested={rate: x}: nested.rate: ")
    assert complaint(file, "size: 1\n", "size=2", "size=x").startswith("--set size=x: ")
    assert complaint(file, "size: x\n", "nested.rate=2").startswith("a.yaml:1: size: ")


def test_further_mistakes_are_counted_and_long_values_cut(file: Path) -> None:
    assert complaint(file, "size: x\nother: 1\nmore: 2\n").endswith("(and 2 more)")
    assert (
        complaint(file, "sise: 1\n")
        == "a.yaml:1: sise: unknown key; it holds 1; expected one of size, steps, nested, named, plain (and 1 more)"
    )
    assert len(complaint(file, f"size: {'x' * 5000}\n")) < 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size: 1\nsize: 2\n", "a.yaml:2: not valid yaml: the key 'size' is there twice"),
        ("size: 1\nnested:\n  rate: 1\n  rate: 2\n", "a.yaml:4: not valid yaml: the key 'rate' is there twice"),
        ("size: 1\nnested: {rate: [\n", "a.yaml:3: not valid yaml: "),
        ("size: 1\n\tnested: 2\n", "a.yaml:2: not valid yaml: "),
        ("size: !!python/object:os.system {}\n", "a.yaml:1: not valid yaml: could not determine a constructor"),
        ("- 1\n", "a.yaml: holds a list, expected keys and values"),
    ],
)
def test_yaml_that_is_no_mapping_is_refused(file: Path, text: str, expected: str) -> None:
    assert complaint(file, text).startswith(expected)


def test_a_file_that_is_missing_or_no_text(file: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_yaml(file)
    file.write_bytes(b"size: \xff\xfe")
    with pytest.raises(BadInput, match="is no text in UTF-8"):
        read_yaml(file)


ODD_VALUES = ["0b_", "0x_", "1" * 5000, "1" + ":1" * 5000, "!!int abc", "!!int ''", "!!float x", "!!bool x",
              "!!binary aGVsbG8=", "!!timestamp x", "!!set {a, b}", "!!omap [a: 1]", "=", "{[1]: 2}", "&a [*a]",
              "&a {b: *a}", "[" * 60 + "]" * 60, "[" * 100_000, "{a: " * 60, "{<<: 3}", "{<<: {a: 1}, <<: {a: 2}}",
              "*nothing", "!unknown x", "%", "[1, 2", "\x00", "- a\n--- b", "@", "'"]  # fmt: skip


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: value[:20])
def test_yaml_that_breaks_readers_gets_one_line(file: Path, value: str) -> None:
    """In a file, with file and line, and on a command line."""
    line = complaint(file, f"size: {value}\n")
    assert re.match(r"a\.yaml:\d*:? ", line), line
    assert "yaml" in line.removeprefix("a.yaml"), line
    assert len(line) < 300
    with pytest.raises(BadInput, match=r"^--set size=") as error:
        load(Recipe, overrides=[f"size={value}"])
    assert len(str(error.value)) < 400
    with pytest.raises(BadInput):
        load(Recipe, overrides=["named." + "a." * 100_000 + "b=1"])


def test_a_date_is_a_text(file: Path) -> None:
    """A volume may be called so, and a wrong date is no error of yaml."""
    content = read_yaml(write(file, "a: 2020-13-45\nb: 2020-01-02\n"))
    assert content == {"a": "2020-13-45", "b": "2020-01-02"}


@pytest.mark.parametrize("leaf", ["1", "x" * 1000, "{k: 1}"])
def test_aliases_that_multiply(file: Path, leaf: str) -> None:
    """Each line repeats the one before ten times: a message must not write all of it, nor a program walk it."""
    levels = [f"a0: &a0 {leaf}", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
    text = "size:\n" + "".join(f"  {level}\n" for level in levels)
    assert re.match(r"a\.yaml:\d+: not valid yaml: more than 50000 values", complaint(file, text))


def test_aliases_as_people_write_them(file: Path) -> None:
    text = (
        "base: &base {rate: 1, count: 2}\nnested: {<<: *base, rate: 3}\nagain: &two {<<: *base, count: 5}\nlast: *two\n"
    )
    content = read_yaml(write(file, text))
    assert content["nested"] == {"rate": 3, "count": 2}
    assert content["last"] == content["again"] == {"rate": 1, "count": 5}


def test_files_that_are_none(file: Path, tmp_path: Path) -> None:
    """A pipe would be waited for, and a device has no end."""
    os.mkfifo(file)
    with pytest.raises(BadInput, match=r"a\.yaml: is no regular file; expected a yaml file"):
        read_yaml(file)
    with pytest.raises(BadInput, match=r"/dev/zero: is no regular file"):
        read_yaml(Path("/dev/zero"))
    with pytest.raises(BadInput, match="is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(BadInput, match="Too many levels of symbolic links"):
        read_yaml(tmp_path / "loop")
    with pytest.raises(BadInput, match="longer than 1048576 bytes"):
        read_yaml(write(tmp_path / "long.yaml", "#" * 2**21))


def test_unknown_keys_name_the_keys_that_exist_nearest_first(file: Path) -> None:
    assert complaint(file, "size: 1\nnestde: 2\n").endswith("expected one of nested, steps, named, size, plain")
    assert complaint(file, "size: 1\nnested: {conut: 2}\n").endswith("it holds 2; expected one of count, rate")
    # of a union, the keys of the one that the tag names
    assert complaint(file, "size: 1\nsteps: [{name: blur, sead: 2}]\n").endswith("expected one of sigma, name")
    assert complaint(file, "size: 1\nnamed: {a: {name: noise, sead: 2}}\n").endswith("one of seeds, sigma, name")


class Named(Settings):
    prose: ClassVar[frozenset[str]] = frozenset({"about"})
    name: str = ""
    path: Path | None = None
    words: tuple[str, ...] = ()
    about: str = ""
    seed: int = 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: ' '", "name: a blank text"),
        ("name: '\u3000'", "name: a blank text"),
        ("path: ' '", "path: a blank text"),
        ("words: [a, '']", "words: a blank text"),
        ('name: "a\\0b"', "name: a text with control characters"),
        ('name: "a\\e[31mb"', "name: a text with control characters"),
        ('name: "a\\nb"', "name: a text with control characters"),
        ('path: "a\\0b"', "path: a text with control characters"),
        ('about: "a\\0b"', "about: a text with control characters"),
        ("seed: 18446744073709551616", "seed: expected a number of at most 64 bits"),
        (f"seed: -{'9' * 300}", "seed: expected a number of at most 64 bits"),
    ],
)
def test_texts_without_letters_and_numbers_without_end(file: Path, text: str, line: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"a.yaml:1: {line}")):
        load(Named, write(file, text))


def test_texts_of_people(file: Path) -> None:
    text = 'name: "näme 中文 \u00a0x"\nabout: "two\\nlines"\nseed: 18446744073709551613\n'
    assert load(Named, write(file, text)).about == "two\nlines"
    assert load(Named, write(file, "name: ''\n")).name == "", "a default that is written down is none worse"


def test_settings_that_another_program_read() -> None:
    assert validate(Recipe, {"size": 3}, "config.yaml") == Recipe(size=3)
    with pytest.raises(
        BadInput, match=r"^config\.yaml: steps\.0\.width: unknown key; it holds 2; expected one of sigma, name"
    ):
        validate(Recipe, {"size": 3, "steps": [{"name": "blur", "width": 2}]}, "config.yaml")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe(size=1).size = 2  # type: ignore[misc]


class Passed(Settings):
    """A setting of each form."""

    number: int = 3
    share: float = 0.5
    word: str = "two words"
    block_size: tuple[int, int, int] | None = None
    pair: tuple[float, float] = (0.5, 1.0)
    flag: bool = False


def test_settings_become_words_of_a_command_line():
    words = ["--number", "3", "--share", "0.5", "--word", "two words", "--pair", "0.5", "1.0"]
    assert as_options(Passed(), Passed) == words
    settings = Passed(block_size=(40, 4, 4), flag=True)
    assert as_options(settings, ["flag", "block_size"]) == ["--flag", "--block-size", "40,4,4"]
    assert as_options(settings, []) == []
