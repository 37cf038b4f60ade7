"""A job's data crosses the store as it is, or is refused at push with the place of the trouble."""

from __future__ import annotations

import dataclasses
import faulthandler
import math
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protojobs.clock import cpu_s as time_spent
from protojobs.errors import DataInvalid, PayloadError, PayloadNotDecodable, PayloadNotEncodable, PayloadTooLarge
from protojobs.jobs import codec

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5)
    ),
    max_leaves=20,
)


class Colour(Enum):
    RED = "red"


class Shade(StrEnum):
    DARK = "dark"


class Level(IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


# Each looks like plain data, or is equal to some, and would come back as something else.
ODD: list[object] = [
    *(math.nan, -math.inf, 2**64, -(2**63) - 1, "\ud800", Shade.DARK, Level.LOW, Text("text"), Number(1.5), b"", 1j),
    *({1: 2}, {True: 1}, {None: 1}, {"\udfff": 1}, {Text("key"): 1}, {Shade.DARK: 1}, {1, 2}, range(3)),
]


class Size(msgspec.Struct):
    width: int
    height: int = 10


@dataclasses.dataclass
class Order:
    id: UUID
    placed_at: datetime
    sizes: list[Size]
    tags: set[str] = dataclasses.field(default_factory=set)
    weight: float | None = None
    note: str = ""


class Pair(NamedTuple):
    first: int
    second: int


class Person(TypedDict, total=False):
    name: str
    born: date
    price: Decimal
    colour: Colour
    waits: timedelta
    raw: bytes
    pair: tuple[int, str]


@dataclasses.dataclass
class Labelled:
    label: Any


@dataclasses.dataclass(frozen=True, eq=False)  # hashable, whatever the label is
class Tag:
    label: Any


class Renamed(msgspec.Struct):
    inner: Any = msgspec.field(name="inside")


class LooseDict(TypedDict):
    label: Any


AN_ORDER = Order(UUID(int=7), datetime(2030, 1, 1, 12, tzinfo=UTC), [Size(1, 2), Size(3)], {"b", "a"}, 1.5, "é")


def encode(data: object, data_type: object = None, bytes_max: int = codec.PAYLOAD_BYTES_MAX) -> str:
    return codec.encode(data, data_type, what="job", bytes_max=bytes_max)


def decode(text: str, data_type: object = None) -> object:
    return codec.decode(text, data_type, what="job")


class TestPlainData:
    @given(JSON)
    @settings(max_examples=200, deadline=None)
    def test_any_json_value_comes_back_as_it_went_in(self, value: object) -> None:
        came_back = decode(encode(value))

        assert came_back == value
        assert repr(came_back) == repr(value) or isinstance(value, (dict, list, float))

    @given(st.binary(max_size=200))
    @settings(max_examples=200, deadline=None)
    def test_whatever_bytes_the_store_holds_decode_or_raise_our_error(self, junk: bytes) -> None:
        try:
            decode(junk.decode("utf-8", "surrogateescape"))
        except PayloadNotDecodable:
            pass

    def test_a_model_of_pydantic_is_refused_with_the_way_to_push_it(self) -> None:
        class Model:
            def model_dump(self) -> None: ...

        with pytest.raises(PayloadNotEncodable, match=r'\$\.user is .*model_dump\(mode="json"\)'):
            encode({"user": Model()})

    def test_a_tuple_arrives_as_a_list(self) -> None:
        assert decode(encode({"pair": (1, 2)})) == {"pair": [1, 2]}

    @pytest.mark.parametrize("number", [2**64 - 1, -(2**63)])
    def test_whole_numbers_of_64_bits_are_exact(self, number: int) -> None:
        assert decode(encode([number])) == [number]

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            ({"a": [1, {"b": math.nan}]}, "$.a[1].b"),
            ({"a": math.inf}, "$.a"),
            ([2**64], "$[0]"),
            ([-(2**63) - 1], "$[0]"),
            ({"name": "\ud800"}, "$.name"),
            ({"\udfff": 1}, "$ (a key)"),
            ({1: "one"}, "$"),
            ({None: 1}, "$"),
            ({"raw": b"bytes"}, "$.raw"),
            ({"when": AN_ORDER.placed_at}, "$.when"),
            ({"id": AN_ORDER.id}, "$.id"),
            ([{1, 2}], "$[0]"),
            ([Decimal(1)], "$[0]"),
            ([Colour.RED], "$[0]"),
            ([1j], "$[0]"),
            ([object()], "$[0]"),
            ({"f": print}, "$.f"),
            (AN_ORDER, "$"),
            (MappingProxyType({"a": 1}), "$"),
        ],
    )
    def test_what_json_would_change_or_cannot_hold_is_refused_with_its_path(self, value: object, path: str) -> None:
        with pytest.raises(PayloadNotEncodable) as refusal:
            encode(value)

        assert refusal.value.path == path
        assert "job: " in str(refusal.value)

    @given(JSON, st.sampled_from(ODD), st.lists(st.sampled_from(["list", "tuple", "dict"]), max_size=4), st.booleans())
    @settings(max_examples=300, deadline=None)
    def test_it_is_refused_wherever_it_stands_among_good_data(
        self, good: object, odd: object, around: list[str], is_first: bool
    ) -> None:
        value = odd
        for kind in around:
            pair = (value, good) if is_first else (good, value)
            value = {"list": list(pair), "tuple": pair, "dict": dict(zip("ab", pair, strict=True))}[kind]
        with pytest.raises(PayloadNotEncodable):
            encode(value)

    def test_dicts_and_lists_of_a_class_of_their_own_are_plain_data(self) -> None:
        assert encode(OrderedDict(b=[1], a=Pair(2, 3))) == '{"b":[1],"a":[2,3]}'

    def test_data_deeper_than_100_is_refused_and_exactly_100_is_not(self) -> None:
        nested: object = []
        for _ in range(codec.DEPTH_MAX - 1):
            nested = [nested]

        assert decode(encode(nested)) == nested
        with pytest.raises(PayloadNotEncodable, match="deep"):
            encode([nested])

    def test_data_that_holds_itself_is_refused(self) -> None:
        loop: list[object] = []
        loop.append(loop)
        with pytest.raises(PayloadNotEncodable, match="deep"):
            encode(loop)

    def test_data_over_the_limit_is_refused_and_data_at_the_limit_is_not(self) -> None:
        fits = "x" * (codec.PAYLOAD_BYTES_MAX - 2)
        assert len(encode(fits)) == codec.PAYLOAD_BYTES_MAX

        with pytest.raises(PayloadTooLarge, match="1,048,577 bytes") as refusal:
            encode(fits + "x")
        assert "payload_bytes_max" in refusal.value.mend

    def test_the_limit_counts_bytes_not_characters(self) -> None:
        with pytest.raises(PayloadTooLarge):
            encode("é" * 10, bytes_max=20)


class TestTypedData:
    def test_keys_of_plain_data_are_put_in_order_and_fields_of_an_object_stay_in_theirs(self) -> None:
        assert (
            encode({"width": 1, "height": {"b": 1, "a": 2}}, dict[str, object]) == '{"height":{"a":2,"b":1},"width":1}'
        )
        assert encode(Size(1), Size) == '{"width":1,"height":10}'

    def test_a_type_that_is_equal_to_another_one_reads_as_itself(self) -> None:
        one: object = Annotated[int, msgspec.Meta(extra={"of": "no hash"})]
        for data_type in (Literal[1], Literal[True], one, one):
            if data_type is Literal[True]:
                with pytest.raises(DataInvalid):
                    encode(1, data_type)
            else:
                assert encode(1, data_type) == "1"

    def test_a_dataclass_with_all_kinds_of_fields_comes_back_equal(self) -> None:
        assert decode(encode(AN_ORDER, Order), Order) == AN_ORDER

    @given(
        st.builds(
            Order,
            placed_at=st.datetimes(timezones=st.just(UTC)),
            weight=st.none() | st.floats(-9, 9),
            sizes=st.lists(st.builds(Size, st.integers(-9, 9), st.integers(-9, 9)), max_size=3),
            note=st.text(st.characters(exclude_categories=["Cs"])),
            tags=st.sets(st.sampled_from("abc")),
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_any_order_comes_back_equal(self, order: Order) -> None:
        assert decode(encode(order, Order), Order) == order

    def test_a_typed_dict_carries_dates_decimals_enums_durations_bytes_and_tuples(self) -> None:
        person: Person = {
            "born": date(1815, 12, 10),
            "price": Decimal("1.10"),
            "colour": Colour.RED,
            "waits": timedelta(minutes=3),
            "raw": b"\x00\xff",
            "pair": (1, "a"),
        }
        assert decode(encode(person, Person), Person) == person

    def test_plain_data_may_stand_for_the_type_and_gets_its_defaults(self) -> None:
        assert decode(encode({"width": 1}, Size), Size) == Size(1, 10)

    def test_another_spelling_of_the_same_date_or_uuid_is_accepted(self) -> None:
        plain = {"id": str(AN_ORDER.id).upper(), "placed_at": "2030-01-01T12:00:00+00:00", "sizes": []}
        assert decode(encode(plain, Order), Order) == Order(AN_ORDER.id, AN_ORDER.placed_at, [])

    @pytest.mark.parametrize(
        ("data", "path"),
        [
            ({"width": "wide"}, "$.width"),
            ({"width": True}, "$.width"),
            ({"width": 1, "heigth": 3}, "$.heigth"),
            ({}, "$"),
            ([], "$"),
            ("text", "$"),
            (None, "$"),
        ],
    )
    def test_data_of_the_wrong_type_and_lost_keys_are_refused_with_their_path(self, data: object, path: str) -> None:
        with pytest.raises(DataInvalid) as refusal:
            encode(data, Size)

        assert refusal.value.path == path
        assert isinstance(refusal.value, TypeError)
        assert isinstance(refusal.value, ValueError)

    def test_a_lost_key_deep_inside_is_named_by_its_path(self) -> None:
        with pytest.raises(DataInvalid) as refusal:
            encode({**dataclasses.asdict(AN_ORDER), "sizes": [{"width": 1, "depth": 2}]}, Order)
        assert refusal.value.path == "$.sizes[0].depth"

    @pytest.mark.parametrize("weight", [math.nan, math.inf])
    def test_nan_inside_an_optional_float_is_refused_though_json_would_make_it_none(self, weight: float) -> None:
        with pytest.raises(PayloadNotEncodable) as refusal:
            encode(dataclasses.replace(AN_ORDER, weight=weight), Order)
        assert refusal.value.path == "$.weight"

    def test_a_lone_surrogate_inside_a_typed_string_is_refused(self) -> None:
        with pytest.raises(PayloadNotEncodable) as refusal:
            encode(dataclasses.replace(AN_ORDER, note="\ud800"), Order)
        assert refusal.value.path == "$.note"

    def test_typed_data_that_holds_itself_is_refused(self) -> None:
        @dataclasses.dataclass
        class Node:
            next: object = None

        node = Node()
        node.next = node
        with pytest.raises(PayloadNotEncodable):
            encode(node, Node)

    def test_a_bool_does_not_pass_for_a_number(self) -> None:
        with pytest.raises(DataInvalid):
            encode([True], list[int])

    def test_a_number_beyond_64_bits_is_refused_in_typed_data_too(self) -> None:
        with pytest.raises(PayloadNotEncodable):
            encode({"width": 2**70}, Size)

    def test_constraints_of_the_type_hold(self) -> None:
        positive = Annotated[int, msgspec.Meta(gt=0)]
        assert encode(1, positive) == "1"
        with pytest.raises(DataInvalid):
            encode(0, positive)
        with pytest.raises(DataInvalid):
            encode("c", Literal["a", "b"])

    def test_a_type_that_json_cannot_fill_is_an_error_that_says_so(self) -> None:
        class Handmade:
            pass

        with pytest.raises(DataInvalid, match="nothing can be read into a Handmade .declare a dataclass"):
            encode({}, Handmade)
        with pytest.raises(PayloadNotEncodable, match="type Handmade is unsupported") as refusal:
            encode(Handmade(), Handmade)
        assert "model_dump" in refusal.value.mend

    def test_an_abstract_type_is_filled_by_whatever_json_has_for_it(self) -> None:
        assert encode([1], Iterable[int]) == "[1]"
        with pytest.raises(DataInvalid, match="Iterable"):
            encode(1, Iterable[int])

    def test_keys_of_several_kinds_are_refused_with_their_place_and_not_for_want_of_an_order(self) -> None:
        with pytest.raises(PayloadNotEncodable, match="has the key 1, and JSON keys are strings") as refusal:
            encode({"note": {"when": AN_ORDER.placed_at, 1: 2}}, dict[str, object])
        assert refusal.value.path == "$.note"


class TestWhereATypeSaysNoMore:
    """`Any`, `object`, a bare dict or list: what stands there must be plain, as where no type is declared."""

    @pytest.mark.parametrize(
        "odd",
        [AN_ORDER.placed_at, AN_ORDER.id, Decimal("1.10"), b"raw", Colour.RED, {1, 2}, timedelta(1), Size(1),
         Labelled("x")],
    )  # fmt: skip
    @pytest.mark.parametrize(
        ("wrapped", "data_type", "path"),
        [
            (lambda odd: odd, object, "$"),
            (lambda odd: {"a": [1, odd]}, dict, "$.a[1]"),
            (lambda odd: [odd], list, "$[0]"),
            (lambda odd: {"a": [odd]}, dict[str, list], "$.a[0]"),
            (lambda odd: {"label": odd}, LooseDict, "$.label"),
            (lambda odd: Labelled(label=odd), Labelled, "$.label"),
            (lambda odd: [Labelled(label=(odd,))], list[Labelled], "$[0].label[0]"),
            (lambda odd: Renamed(inner=odd), Renamed, "$.inside"),
            (lambda odd: {"inside": odd}, Renamed, "$.inside"),
            (lambda odd: {Tag(odd)}, set[Tag], "$[0].label"),
        ],
    )
    def test_an_object_that_would_come_back_as_plain_json_is_refused_with_its_path(
        self, odd: object, wrapped: Callable[[object], object], data_type: object, path: str
    ) -> None:
        with pytest.raises(PayloadNotEncodable, match="would not come back as it is") as refusal:
            encode(wrapped(odd), data_type)
        assert refusal.value.path == path

    def test_so_it_is_in_a_class_of_attrs(self) -> None:
        attrs = pytest.importorskip("attrs")
        kind = attrs.make_class("ByAttrs", {"label": attrs.field(type=Any)})
        assert encode(kind("x"), kind) == '{"label":"x"}'
        with pytest.raises(PayloadNotEncodable, match=r"\$\.label is a uuid\.UUID"):
            encode(kind(AN_ORDER.id), kind)

    def test_so_is_a_key(self) -> None:
        with pytest.raises(PayloadNotEncodable) as refusal:
            encode({"a": {AN_ORDER.placed_at: 1}}, dict[str, object])
        assert refusal.value.path == "$.a (a key)"

    def test_and_one_where_text_or_a_list_is_declared(self) -> None:
        for odd, data_type in ((AN_ORDER.id, str), (AN_ORDER.placed_at, str), ({"a"}, list[str])):
            with pytest.raises(PayloadNotEncodable):
                encode({"a": odd}, dict[str, data_type])  # type: ignore[valid-type]

    @pytest.mark.parametrize(
        ("data", "data_type"),
        [
            ({"a": frozenset({AN_ORDER.id, UUID(int=1)})}, dict[str, set[UUID]]),
            ({"a": [Pair(1, 2)]}, dict[str, list[Pair]]),
            ({"id": AN_ORDER.id, "placed_at": AN_ORDER.placed_at, "sizes": [{"width": 1}]}, Order),
            (Labelled(label=[Shade.DARK, Level.LOW, (1, None)]), Labelled),
            ({"a": bytearray(b"x")}, dict[str, bytes]),
            (Renamed(inner={"a": 1.5}), Renamed),
        ],
    )
    def test_what_its_type_makes_again_is_accepted(self, data: object, data_type: object) -> None:
        assert decode(encode(data, data_type), data_type)


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001  (that is what is tried)
LMT = datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))  # 9 minutes 21 seconds from UTC


class At(msgspec.Struct):
    moment: datetime | None = None
    clock: time | None = None
    length: timedelta | None = None
    days: set[date] = set()
    other: dict[str, datetime] = {}


OnTheWall = Annotated[datetime, msgspec.Meta(tz=False)]


class Offer(msgspec.Struct):
    opens: OnTheWall
    until: datetime | None = None
    next_one: Offer | None = None


@dataclasses.dataclass
class Window:
    opens: OnTheWall
    until: datetime


class Shift(TypedDict):
    opens: OnTheWall
    until: datetime


class Named(NamedTuple):
    opens: OnTheWall
    until: datetime


class TestMoments:
    @pytest.mark.parametrize(
        ("data", "path"),
        [
            (At(moment=LMT), "$.moment"),
            ({"moment": LMT}, "$.moment"),
            (At(other={"x": LMT}), "$.other.x"),
            (At(clock=time(12, tzinfo=timezone(timedelta(seconds=90)))), "$.clock"),
            (At(clock=time(12, tzinfo=ZoneInfo("Europe/Paris"))), "$.clock"),
            ({"moment": "2030-01-01T00:00:00.123456789Z"}, "$.moment"),
            ({"moment": "2030-01-01T23:59:59.9999999Z"}, "$.moment"),
            ({"clock": "12:00:00.0000001"}, "$.clock"),
            ({"length": "PT0.0000001S"}, "$.length"),
            ({"other": {"x": "2030-01-01T00:00:00.0000001Z"}}, "$.other.x"),
        ],
    )
    def test_one_that_would_arrive_as_another_is_refused_with_its_path(self, data: object, path: str) -> None:
        with pytest.raises(DataInvalid) as refusal:
            encode(data, At)
        assert refusal.value.path == path

    @pytest.mark.parametrize(
        "data",
        [
            {"moment": "2030-01-01T00:00:00.1234560000Z", "length": "PT0.5000000S", "clock": "12:00:00.1000000"},
            {"moment": "2030-01-01t00:00:00+00:09", "length": "P0.5D"},
            At(moment=datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1), clock=time(9)),
            At(moment=datetime(2030, 1, 1, tzinfo=timezone(timedelta(minutes=-9)))),
            At(moment=datetime.max.replace(tzinfo=UTC), length=timedelta(microseconds=1)),
        ],
    )
    def test_one_that_arrives_as_it_is_is_accepted(self, data: object) -> None:
        came_back = decode(encode(data, At), At)
        assert isinstance(came_back, At)
        if isinstance(data, At) and data.moment is not None and came_back.moment is not None:
            assert came_back.moment.timestamp() == data.moment.timestamp()

    @pytest.mark.parametrize(
        ("data", "path"),
        [
            (At(moment=NAIVE), "$.moment"),
            ({"moment": "2030-01-01T00:00:00"}, "$.moment"),
            ({"moment": NAIVE}, "$.moment"),
            (At(other={"a": LMT.replace(tzinfo=UTC), "x": NAIVE}), "$.other.x"),
        ],
    )
    def test_one_without_a_zone_is_refused_as_later_refuses_it(self, data: object, path: str) -> None:
        with pytest.raises(DataInvalid, match="has no time zone") as refusal:
            encode(data, At)
        assert refusal.value.path == path
        assert "timezone.utc" in refusal.value.mend

    @pytest.mark.parametrize(
        ("data_type", "data", "path"),
        [
            (datetime, NAIVE, "$"),
            (list[datetime], [LMT.replace(tzinfo=UTC), NAIVE], "$[1]"),
            (tuple[int, dict[str, list[datetime | None]]], (1, {"a": [None, NAIVE]}), "$[1].a[1]"),
            (list[At], [At(), At(moment=NAIVE)], "$[1].moment"),
            (frozenset[datetime], {NAIVE}, "$[0]"),
            (dict[datetime, int], {NAIVE: 1}, "$ (a key)"),
            (Annotated[datetime, msgspec.Meta(description="when it ends")], NAIVE, "$"),
        ],
    )
    def test_one_inside_lists_unions_and_records_is_found(self, data_type: object, data: object, path: str) -> None:
        with pytest.raises(DataInvalid, match="has no time zone") as refusal:
            encode(data, data_type)
        assert refusal.value.path == path
        text = msgspec.json.encode(data).decode()
        with pytest.raises(PayloadNotDecodable, match=r"does not decode: .* has no time zone"):
            decode(text, data_type)

    def test_a_field_for_times_on_the_wall_excuses_no_other_field(self) -> None:
        offer = Offer(opens=NAIVE, until=LMT.replace(tzinfo=UTC), next_one=Offer(opens=NAIVE))
        assert decode(encode(offer, Offer), Offer) == offer
        for wrong, path in (
            (Offer(opens=NAIVE, until=NAIVE), "$.until"),
            (Offer(opens=NAIVE, next_one=Offer(opens=NAIVE, until=NAIVE)), "$.next_one.until"),
            ({"opens": "2030-01-01T00:00:00", "until": "2030-01-01T00:00:00"}, "$.until"),
        ):
            with pytest.raises(DataInvalid, match="has no time zone") as refusal:
                encode(wrong, Offer)
            assert refusal.value.path == path
        with pytest.raises(DataInvalid, match=r"no timezone component at \$.opens"):
            encode(Offer(opens=LMT.replace(tzinfo=UTC)), Offer)

    @pytest.mark.parametrize("data_type", [Window, Shift, Named])
    def test_so_it_is_in_every_kind_of_record(self, data_type: type[Any]) -> None:
        data = data_type(opens=NAIVE, until=LMT.replace(tzinfo=UTC))
        assert decode(encode(data, data_type), data_type) == data
        with pytest.raises(DataInvalid, match="has no time zone") as refusal:
            encode(data_type(opens=NAIVE, until=NAIVE), data_type)
        assert refusal.value.path == "$.until"

    def test_a_time_on_the_wall_is_declared_as_such_and_times_and_dates_have_no_zone(self) -> None:
        wall = Annotated[datetime, msgspec.Meta(tz=False)]
        assert decode(encode(NAIVE, wall), wall) == NAIVE
        assert decode(encode(At(clock=time(9), days={date(2030, 1, 1)}), At), At) is not None


class TestDataThatWouldNotEnd:
    """A list that is in the data twice is stored twice."""

    @staticmethod
    def shared(levels: int) -> list[Any]:
        tree: list[Any] = []
        for _ in range(levels):
            tree = [tree, tree]
        return tree

    class Tree(msgspec.Struct):
        name: str
        left: Any = None
        right: Any = None

    @pytest.mark.parametrize("levels", [24, 40, 99])
    @pytest.mark.parametrize("form", ["list", "dict", "object", "typed"])
    def test_it_is_refused_soon_with_its_path(self, levels: int, form: str) -> None:
        tree, data_type, path = self.shared(levels), None, "$[0]"
        data: object = tree
        if form == "dict":
            data, path = {"a": 1, "tree": tree, "z": float("nan")}, "$.tree"
        if form in ("object", "typed"):
            for _ in range(levels - 1 if form == "typed" else 0):
                tree = self.Tree("node", tree, tree)
            data, data_type, path = self.Tree("root", 1, tree), self.Tree, "$.right"
        began = time_spent()
        with pytest.raises(PayloadNotEncodable) as refusal:
            encode(data, data_type)
        assert time_spent() - began < 5
        assert refusal.value.path.startswith(path)

    def test_a_long_text_that_is_in_it_often_is_never_written_so_often(self) -> None:
        text = "x" * 1_000_000
        began = time_spent()
        for data in ([text] * 100_000, {"a": [text] * 100_000}, {str(n): [text] for n in range(100_000)}):
            with pytest.raises(PayloadTooLarge):
                encode(data)
        assert time_spent() - began < 5

    def test_what_is_in_it_twice_and_fits_is_accepted(self) -> None:
        tree = self.shared(10)
        assert decode(encode({"a": tree, "b": tree})) == {"a": tree, "b": tree}

    @given(JSON)
    def test_no_data_is_refused_for_its_number_of_values_that_fits_by_its_bytes(self, value: object) -> None:
        size = len(msgspec.json.encode(value))
        assert codec.encode(value, None, what="x", bytes_max=size)


class Point(NamedTuple):
    x: int
    y: int = 0
    label: str = "none"


class Row(msgspec.Struct, array_like=True, frozen=True):
    id: int
    note: str = "none"


class Marked(msgspec.Struct, array_like=True, tag=True):
    at: datetime
    note: str = "none"


class Member(msgspec.Struct, frozen=True):
    id: UUID
    level: int = 0


class TestFormsThatFit:
    @pytest.mark.parametrize(
        ("data", "data_type", "wanted"),
        [
            ({"ids": [3, 1, 2]}, dict[str, set[int]], {"ids": {1, 2, 3}}),
            ({"ids": [3, 1, 3]}, dict[str, frozenset[int]], {"ids": {1, 3}}),
            ([[2, 1], [1, 2]], set[tuple[int, int]], {(2, 1), (1, 2)}),
            ([2.5, 1], set[float], {2.5, 1.0}),
            (["b", "a"], set[str], {"a", "b"}),
            ([{"id": str(UUID(int=171)).upper()}, {"id": str(UUID(int=1)), "level": 3}], set[Member],
             {Member(UUID(int=171)), Member(UUID(int=1), 3)}),
            ([1], Point, Point(1)),
            ([[1], [1, 2]], list[Point], [Point(1), Point(1, 2)]),
            ([1], Row, Row(1)),
            ([[2], [1, "b"]], set[Row], {Row(2), Row(1, "b")}),
            (["Marked", "2030-01-01T00:00:00.50Z"], Marked, Marked(datetime(2030, 1, 1, 0, 0, 0, 500_000, UTC))),
            ({"on": date(2030, 1, 1), "ids": [3, 1, 3]}, dict[str, date | set[int]],
             {"on": date(2030, 1, 1), "ids": {1, 3}}),
        ],
    )  # fmt: skip
    def test_a_set_in_any_order_and_a_row_without_its_defaults_are_accepted(
        self, data: object, data_type: object, wanted: object
    ) -> None:
        assert decode(encode(data, data_type), data_type) == wanted

    @pytest.mark.parametrize(
        ("data", "data_type", "path"),
        [
            ([1, True], set[Any], "$[1]"),
            ([{"id": str(UUID(int=1)), "levle": 3}], set[Member], "$[0]"),
            ([1, "note", "more"], Row, "$[2]"),
            ([[1, "note", "more"]], set[Row], "$[0]"),
            (["Marked", "2030-01-01T00:00:00.0000001Z"], Marked, "$[1]"),
            ({"ids": {UUID(int=1)}}, dict[str, set[Any]], "$.ids[0]"),
            ({"ids": [UUID(int=1)]}, dict[str, set[Any]], "$.ids[0]"),
        ],
    )
    def test_what_such_a_type_would_drop_or_change_is_refused(self, data: object, data_type: object, path: str) -> None:
        with pytest.raises(PayloadError) as refusal:
            encode(data, data_type)
        assert refusal.value.path == path

    def test_a_private_field_of_attrs_is_refused_where_it_would_be_lost(self) -> None:
        @attrs.define
        class Account:
            name: str
            _balance: int = 0

        assert decode(encode(Account("jo"), Account), Account) == Account("jo")
        with pytest.raises(DataInvalid) as refusal:
            encode(Account("jo", 5), Account)
        assert refusal.value.path == "$._balance"


class TestStoredDataThatNoLongerFits:
    @pytest.mark.parametrize(
        "text",
        ['{"width"', "", "nul", "[" * 100_000, '{"a": 1e}', '{"wid":1}', '{"width":"x"}', "\ud800", '"\\ud800"', "[]"],
        ids=["cut", "empty", "no word", "deep", "number", "keys", "type", "surrogate", "escaped surrogate", "shape"],
    )
    def test_it_raises_our_error_whatever_is_wrong(self, text: str) -> None:
        with pytest.raises(PayloadNotDecodable) as refusal:
            decode(text, Size)
        assert refusal.value.mend

    def test_unknown_keys_are_passed_over_so_that_old_workers_can_run_new_jobs(self) -> None:
        assert decode('{"width":1,"colour":"red"}', Size) == Size(1, 10)


def test_threads_that_meet_a_type_for_the_first_time_together_do_not_crash_the_process() -> None:
    """In a process of its own: msgspec alone dies of this within a second, of a description that is not whole yet."""
    program = """
import sys, threading, time
import msgspec
from protojobs.jobs import codec
sys.setswitchinterval(1e-6)
ends = time.monotonic() + 3
while time.monotonic() < ends:
    inner = msgspec.defstruct("Inner", [("x", int), ("y", list[int])])
    outer = msgspec.defstruct("Outer", [("a", inner), ("b", inner | None, None), ("z", int, 1)])
    together = threading.Barrier(4)
    def decode():
        together.wait(10)
        assert codec.decode('{"z": 1, "a": {"x": 1, "y": [1]}}', outer, what="it").a.x == 1
    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_copy_of_the_process_decodes_though_another_thread_was_making_a_decoder() -> None:
    class Order(msgspec.Struct):
        number: int

    with codec._making:  # as another thread may hold it at that moment
        copy = os.fork()
        if copy == 0:
            faulthandler.dump_traceback_later(20, exit=True)
            order = codec.decode('{"number": 7}', Order, what="x")
            os._exit(0 if order == Order(7) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
