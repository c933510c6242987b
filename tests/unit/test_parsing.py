"""Text becomes plain values: as much of it as is taken, and at a cost that is known."""

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from consumer.document import DocumentError, Plain, SpecDefaults
from consumer.errors import InvalidMessage
from consumer.messages import Delivery, decode_tenant_event
from consumer.parsing import DEEPEST, MOST_VALUES, parse_json, parse_yaml
from tests.builders import make_delivery
from tests.faults.hostile import HOSTILE, LONGEST, YAML, Hostile

MOST_TIMES = 20
"""The floor; the dearest takes less than five of it, and took more than a hundred before."""
PLAIN = json.dumps(["x" * 8] * (LONGEST // 12))
SECRET = "s3cret"  # stands for a value that only the tenant may know


def refusal(text: str, *, is_yaml: bool) -> str:
    """Return why the text is refused."""
    with pytest.raises(DocumentError) as error:
        parse_yaml(text) if is_yaml else parse_json(text)
    return str(error.value)


def floor() -> float:
    """Return how much of a CPU it takes to read plain JSON of the longest size ten times."""
    began = time.thread_time()
    for _ in range(10):
        json.loads(PLAIN)
    return time.thread_time() - began


def cost(delivery: Delivery) -> tuple[float, str]:
    """Return how many times the floor reading takes, and what is told of its faults."""
    least = floor()
    told = ""
    began = time.thread_time()
    try:
        decode_tenant_event(delivery, SpecDefaults())
    except InvalidMessage as error:
        told = str(error)
    return (time.thread_time() - began) / least, told


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_no_body_costs_much(hostile: Hostile) -> None:
    """Whatever a body says, it is read or refused within milliseconds, and little is told of it."""
    delivery = make_delivery(1, body=hostile.body, content_type=hostile.content_type)

    # Beside other work a try may be cut short at a bad moment, so the best of a few counts.
    tries = (cost(delivery) for _ in range(3))
    times, told = next((it for it in tries if it[0] < MOST_TIMES), (MOST_TIMES, ""))

    assert len(hostile.body) <= LONGEST
    assert times < MOST_TIMES
    assert len(told) < 150_000


@pytest.mark.parametrize("is_yaml", [False, True])
def test_values_are_counted(is_yaml: bool) -> None:
    """So many values are taken, and no more."""
    members = ",".join(["1"] * (MOST_VALUES - 1))

    taken = parse_yaml(f"[{members}]") if is_yaml else parse_json(f"[{members}]")

    assert isinstance(taken, list)
    assert len(taken) == MOST_VALUES - 1
    assert "more than 12000 values" in refusal(f"[{members},1]", is_yaml=is_yaml)


@pytest.mark.parametrize("is_yaml", [False, True])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a": ', "}")])
def test_depth_is_counted(opened: str, closed: str, is_yaml: bool) -> None:
    """So many levels are taken, and no more."""
    deep = opened * DEEPEST + "1" + closed * DEEPEST

    taken = parse_yaml(deep) if is_yaml else parse_json(deep)

    assert taken is not None
    assert "nested too deeply" in refusal(f"{opened}{deep}{closed}", is_yaml=is_yaml)


def test_commas_and_brackets_in_strings_and_comments_are_no_values() -> None:
    """Only what structures a JSON text is counted."""
    marks = "[{,}]" * 4_000

    assert parse_json(f'["{marks}", 1] // {marks}\n/* {marks} */') == [marks, 1]


WORDS = ["a", "b: ", "- ", "\n", "\n  ", "[", "]", "{", "}", ", ", "'", '"', "#", " ", "? ", "|\n"]
MORE_WORDS = [
    ">-\n",
    "1.10",
    "no",
    "~",
    "''",
    "\\n",
    "\\u00e9",
    "\u00e9",
    "---\n",
    "...\n",
    "http://x",
]


@given(text=st.lists(st.sampled_from(WORDS + MORE_WORDS), max_size=12).map("".join))
def test_libyaml_reads_what_the_slow_reader_reads(text: str) -> None:
    """Where both readers take a text, both take it for the same."""
    slow, quick = as_by_the_slow_reader(f"k: {text}"), as_by_ours(f"k: {text}")

    assert slow is None or quick is None or typed(quick[0]) == typed(slow[0])


letters = st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" \n")
plain_values = st.recursive(
    st.text(letters, max_size=20)
    | st.sampled_from(["no", "1.10", "0755", "~", "<", "a: b", "- a", "\n"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(letters, max_size=8).filter(lambda key: key != "<<"), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(value=plain_values, style=st.sampled_from([None, "'", '"', "|", ">"]), flow=st.booleans())
def test_what_others_write_as_yaml_is_read(value: object, style: str | None, flow: bool) -> None:
    """A document of texts that a YAML library writes is read as it was, in any style."""
    text = yaml.safe_dump(value, default_style=style, default_flow_style=flow, allow_unicode=True)

    assert parse_yaml(without_tags(text)) == value


def without_tags(text: str) -> str:
    """Return the text without the tag that the library sets before text in a quoted style."""
    return text.replace("!!str ", "")


def typed(value: object) -> object:
    """Return the value with what is unquoted told from what is text."""
    if isinstance(value, dict):
        return {key: typed(member) for key, member in value.items()}
    if isinstance(value, list):
        return [typed(member) for member in value]
    return type(value).__name__, value


def as_by_ours(text: str) -> list[object] | None:
    """Return, in a list, what the text is to us; None if we refuse it."""
    try:
        return [parse_yaml(text)]
    except DocumentError:
        return None


def as_by_the_slow_reader(text: str) -> list[object] | None:
    """Return, in a list, what PyYAML's own reader makes of the text; None if it refuses it."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    try:
        return [None if node is None else as_written(node)]
    except KeyError:
        return None


def as_written(node: yaml.Node) -> object:
    """Return the node's content. Raises KeyError for a key that is no text."""
    if isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value]
        if not all(isinstance(key, yaml.ScalarNode) for key in keys):
            raise KeyError(node.tag)
        return {key.value: as_written(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [as_written(member) for member in node.value]
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return Plain(node.value) if is_plain else node.value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"a: !{SECRET}$ x", id="tag"),
        pytest.param(f"a: !{SECRET}!x y", id="handle of a tag"),
        pytest.param(f"a: !<{SECRET}", id="tag cut off"),
        pytest.param(f"a: !ENC[{SECRET},x]", id="tag of another tool"),
        pytest.param(f"a: &{SECRET}$ x", id="anchor"),
        pytest.param(f"a: *{SECRET}", id="alias"),
        pytest.param(f"%TAG {SECRET} x\n---\na: 1", id="directive"),
        pytest.param(f"%{SECRET} x\n---\na: 1", id="unknown directive"),
        pytest.param(f'a: "{SECRET}\\q"', id="escape"),
        pytest.param(f"a: b: {SECRET}", id="two colons"),
        pytest.param(f"a: [{SECRET}", id="cut off"),
        pytest.param(f"A={SECRET}: 1\nA={SECRET}: 2", id="duplicate key"),
        pytest.param(f"? [{SECRET}]\n: 1", id="list as key"),
        pytest.param(f"a: @{SECRET}", id="reserved character"),
        pytest.param(f"a: {SECRET}\x07", id="control character"),
    ],
)
def test_what_is_said_of_yaml_holds_nothing_of_it(text: str) -> None:
    """An error names the place and the rule, and no value of the document."""
    assert SECRET not in refusal(text, is_yaml=True)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f'{{"a": "{SECRET}\\q"}}', id="escape"),
        pytest.param(f'{{"a": {SECRET}}}', id="no quotes"),
        pytest.param(f'{{"a": "{SECRET}', id="cut off"),
        pytest.param(f'{{"A={SECRET}": 1, "A={SECRET}": 2}}', id="duplicate key"),
        pytest.param(f'{{"a": 1}} {SECRET}', id="more"),
        pytest.param(json.dumps({"a": 1})[:-1] + SECRET, id="no comma"),
    ],
)
def test_what_is_said_of_json_holds_nothing_of_it(text: str) -> None:
    """An error names the place and the rule, and no value of the document."""
    assert SECRET not in refusal(text, is_yaml=False)


def test_yaml_has_a_limit_of_its_own() -> None:
    """What is longer than YAML may be is refused, though JSON of that length is taken."""
    delivery = make_delivery(1, body=b"tenant_id: acme" + b" " * 300, content_type=YAML)

    with pytest.raises(InvalidMessage) as refused:
        decode_tenant_event(delivery, SpecDefaults(max_yaml_bytes=256))

    assert "the body has 315 bytes, at most 256 are taken" in str(refused.value)
