"""Pydantic models as a job's data: checked at push, stored as JSON, and validated again where they are read."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from protojobs import Job, JobContext, JobQueue, create_driver, job
from protojobs.errors import DataInvalid, PayloadError, PayloadNotDecodable, PayloadNotEncodable, PayloadTooLarge
from protojobs.jobs import codec

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001  (that is what is tried)


def encode(data: object, data_type: object = None) -> str:
    return codec.encode(data, data_type, what="job")


def decode(text: str, data_type: object = None) -> object:
    return codec.decode(text, data_type, what="job")


class Size(Enum):
    SMALL = "s"


class Line(BaseModel):
    sku: str = Field(min_length=2)
    price: Decimal = Decimal(1)


class Order(BaseModel):
    id: uuid.UUID
    lines: list[Line] = []
    due: date | None = None
    size: Size = Size.SMALL
    placed_at: datetime | None = None
    within: timedelta = timedelta(days=1)


ORDER = Order(
    id=uuid.UUID(int=7),
    lines=[Line(sku="ab", price=Decimal("9.90"))],
    due=date(2030, 1, 2),
    placed_at=datetime(2030, 1, 1, 2, 30, tzinfo=ZoneInfo("Europe/Paris")),
)


class Envelope(msgspec.Struct):
    order: Order
    others: dict[str, list[Order]] = {}


@dataclasses.dataclass
class Parcel:
    order: Order | None
    number: int = 1


class TestAModelComesBack:
    @pytest.mark.parametrize(
        ("data", "data_type"),
        [
            (ORDER, Order),
            ([ORDER], list[Order]),
            (None, Order | None),
            (Envelope(ORDER, {"x": [ORDER]}), Envelope),
            (Parcel(ORDER), Parcel),
            (Parcel(None), Parcel),
        ],
    )
    def test_as_it_is(self, data: object, data_type: object) -> None:
        assert decode(encode(data, data_type), data_type) == data

    def test_of_a_dict_the_worker_gets_what_the_model_has_made_of_it(self) -> None:
        text = encode({"id": str(uuid.UUID(int=7)), "lines": [{"sku": "ab", "price": "9.90"}], "within": 60}, Order)
        order = decode(text, Order)
        assert isinstance(order, Order)
        assert (order.within, order.lines) == (timedelta(minutes=1), [Line(sku="ab", price=Decimal("9.90"))])

    def test_what_is_made_at_push_is_not_made_again_at_each_run(self) -> None:
        class Stamped(BaseModel):
            id: uuid.UUID = Field(default_factory=uuid.uuid4)

        text = encode({}, Stamped)
        assert decode(text, Stamped) == decode(text, Stamped)

    def test_a_moment_that_a_clock_shows_twice_is_the_same(self) -> None:
        autumn = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1)
        came_back = decode(encode(Order(id=uuid.UUID(int=1), placed_at=autumn), Order), Order)
        assert isinstance(came_back, Order)
        assert came_back.placed_at is not None
        assert came_back.placed_at.timestamp() == autumn.timestamp()

    def test_a_strict_model_reads_its_dates(self) -> None:
        class Strict(BaseModel):
            model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
            day: date
            names: frozenset[str] = frozenset()

            @computed_field
            @property
            def year(self) -> int:
                return self.day.year

        strict = Strict(day=date(2030, 1, 1), names=frozenset({"a", "b", "c"}))
        assert decode(encode(strict, Strict), Strict) == strict
        assert "year" not in encode(strict, Strict)  # it is computed again

    def test_under_names_and_aliases_of_each_kind(self) -> None:
        class Aliased(BaseModel):
            one: int = Field(alias="uno")
            two: int = Field(serialization_alias="due", default=2)
            three: int = Field(validation_alias=AliasChoices("tres", AliasPath("numbers", 0)))

        sent = Aliased.model_validate({"uno": 1, "two": 2, "tres": 3})
        assert msgspec.json.decode(encode(sent, Aliased)) == {"one": 1, "two": 2, "three": 3}
        assert decode(encode(sent, Aliased), Aliased) == sent
        for data in ({"uno": 1, "tres": 3}, {"one": 1, "three": 3, "two": 2}, {"uno": 1, "numbers": [3]}):
            assert decode(encode(data, Aliased), Aliased) == sent

    def test_models_that_take_other_keys_and_that_have_a_root(self) -> None:
        class Open(BaseModel):
            model_config = ConfigDict(extra="allow")
            a: int

        class Numbers(RootModel[list[int]]):
            pass

        class Cat(BaseModel):
            kind: Literal["cat"] = "cat"

        class Dog(BaseModel):
            kind: Literal["dog"] = "dog"
            lines: list[Line] = []

        class Pet(RootModel[Annotated[Cat | Dog, Field(discriminator="kind")]]):
            pass

        for data, data_type in (
            (Open.model_validate({"a": 1, "b": [2]}), Open),
            (Numbers([1, 2]), Numbers),
            (Pet(Dog()), Pet),
        ):
            assert decode(encode(data, data_type), data_type) == data
        assert decode(encode({"a": 1, "b": 2}, Open), Open) == Open.model_validate({"a": 1, "b": 2})
        assert decode(encode(["1", 2], Numbers), Numbers) == Numbers([1, 2])
        with pytest.raises(DataInvalid) as refusal:
            encode({"kind": "dog", "lines": [{"sku": "ab", "prize": 1}]}, Pet)
        assert refusal.value.path == "$.lines[0].prize"

    def test_a_validator_may_read_an_older_shape(self) -> None:
        class Renamed(BaseModel):
            email: str

            @model_validator(mode="before")
            @classmethod
            def older(cls, data: dict[str, object]) -> dict[str, object]:
                return {"email": data["mail"]} if "mail" in data else data

        assert encode({"mail": "jo@example.com"}, Renamed) == '{"email":"jo@example.com"}'


class TestItIsRefusedAtPush:
    @pytest.mark.parametrize(
        ("data", "data_type", "path", "said"),
        [
            ({"id": "x"}, Order, "$.id", "Input should be a valid UUID"),
            ({}, Order, "$.id", "Field required"),
            ({"id": ORDER.id, "lines": [{"sku": "ab"}, {"sku": "a"}]}, Order, "$.lines[1].sku", "at least 2 char"),
            ({"id": str(ORDER.id), "dues": "2030-01-01"}, Order, "$.dues", "is not a field"),
            (
                {"order": {"id": str(ORDER.id), "lines": [{"sku": "ab", "q": 1}]}},
                Envelope,
                "$.order.lines[0].q",
                "not a f",
            ),
            ({"order": {"id": "7"}}, Envelope, "$.order.id", "valid UUID"),
            ({"order": ORDER, "others": {"x": [{}]}}, Envelope, "$.others[...][0].id", "Field required"),
        ],
    )
    def test_where_it_does_not_fit_with_the_path_of_the_field(
        self, data: object, data_type: object, path: str, said: str
    ) -> None:
        with pytest.raises(DataInvalid, match=said) as refusal:
            encode(data, data_type)
        assert refusal.value.path == path

    def test_with_all_that_is_wrong_and_without_the_values(self) -> None:
        with pytest.raises(DataInvalid) as refusal:
            encode({"id": "hunter2", "lines": [{"sku": ""}], "due": "soon"}, Order)
        assert refusal.value.message.endswith("at $.id.")
        assert "(and 2 more: $.lines[0].sku, $.due)" in refusal.value.message
        assert "hunter2" not in str(refusal.value)

    def test_where_it_was_changed_to_what_its_type_does_not_allow(self) -> None:
        order = ORDER.model_copy(update={"lines": "none"})
        with pytest.raises(DataInvalid) as refusal:
            encode(order, Order)
        assert refusal.value.path == "$.lines"

    def test_where_json_has_no_such_number(self) -> None:
        class Share(BaseModel):
            share: float

        with pytest.raises(PayloadNotEncodable, match=r"\$.share is nan"):
            encode(Share(share=float("nan")), Share)

    def test_a_secret_an_excluded_field_and_a_private_one(self) -> None:
        class Login(BaseModel):
            token: SecretStr | None = None
            note: str = Field(default="", exclude=True)
            _seen: int = PrivateAttr(default=0)
            _lock: Any = PrivateAttr(default_factory=object)

        assert decode(encode(Login(), Login), Login)
        private = Login()
        private._seen = 2
        for data, path, said in (
            (Login(token=SecretStr("hunter2")), "$.token", "SecretStr, which would not come back"),
            (Login(note="x"), "$.note", "is excluded from what the model dumps"),
            (private, "$._seen", "is private"),
        ):
            with pytest.raises(DataInvalid, match=said) as refusal:
                encode(data, Login)
            assert refusal.value.path == path
            assert "hunter2" not in str(refusal.value)

    def test_a_subclass_of_what_is_declared(self) -> None:
        class Gift(Line):
            card: str

        with pytest.raises(DataInvalid, match="Gift, and would come back as a Line") as refusal:
            encode(Order(id=ORDER.id, lines=[Gift(sku="ab", card="x")]), Order)
        assert refusal.value.path == "$.lines[0]"
        with pytest.raises(DataInvalid, match=r"\$.card is not a field"):
            encode(Gift(sku="ab", card="x"), Line)

    def test_what_any_turns_into_text_and_what_reads_otherwise_than_it_writes(self) -> None:
        class Loose(BaseModel):
            anything: Any = None

        class Doubling(BaseModel):
            n: int

            @field_validator("n")
            @classmethod
            def double(cls, n: int) -> int:
                return 2 * n

        class Kept(BaseModel):
            token: SecretStr

            @field_serializer("token")
            def write(self, token: SecretStr) -> str:
                return token.get_secret_value()

        with pytest.raises(DataInvalid) as refusal:
            encode(Loose(anything={"at": [date(2030, 1, 1)]}), Loose)
        assert refusal.value.path == "$.anything.at[0]"
        with pytest.raises(DataInvalid) as refusal:
            encode(Loose(anything={1: "x"}), Loose)
        assert refusal.value.path == "$.anything.1"
        for data in (Doubling(n=1), {"n": 1}):
            with pytest.raises(DataInvalid) as refusal:
                encode(data, Doubling)
            assert refusal.value.path == "$.n"
        kept = Kept(token=SecretStr("x"))
        assert decode(encode(kept, Kept), Kept) == kept

    @pytest.mark.parametrize("data_type", [None, dict[str, Any], Line, Envelope, Parcel])
    def test_a_model_for_a_job_that_declares_something_else(self, data_type: object) -> None:
        with pytest.raises(PayloadError):
            encode(ORDER, data_type)

    def test_a_model_for_a_job_without_a_type_with_the_ways_to_push_it(self) -> None:
        with pytest.raises(PayloadNotEncodable, match=r"Declare it: class MyJob\(Job\[Line\]\).*model_dump\(mode="):
            encode({"line": Line(sku="ab")})

    def test_a_dataclass_of_pydantic_and_a_union_of_models(self) -> None:
        @pydantic.dataclasses.dataclass
        class Checked:
            n: int

        with pytest.raises(DataInvalid, match="make it a BaseModel"):
            encode(Checked(1), Checked)
        with pytest.raises(DataInvalid, match="into a RootModel"):
            encode(ORDER, Order | Line)

    def test_a_datetime_without_a_zone_unless_its_field_is_for_such(self) -> None:
        class Inner(BaseModel):
            at: list[datetime] = []

        class Opening(BaseModel):
            opens: NaiveDatetime | None = None
            until: datetime | None = None
            inner: Inner = Inner()

        opening = Opening(opens=NAIVE)
        assert decode(encode(opening, Opening), Opening) == opening
        for data, path in (
            (Opening(until=NAIVE), "$.until"),
            ({"opens": "2030-01-01T00:00:00", "until": "2030-01-01T00:00:00"}, "$.until"),
            (Opening(inner=Inner(at=[datetime(2030, 1, 1, tzinfo=UTC), NAIVE])), "$.inner.at[1]"),
        ):
            with pytest.raises(DataInvalid, match="has no time zone") as refusal:
                encode(data, Opening)
            assert refusal.value.path == path
        with pytest.raises(PayloadNotDecodable, match="has no time zone"):
            decode('{"until":"2030-01-01T00:00:00"}', Opening)

    def test_one_without_end_is_refused_before_it_is_dumped(self) -> None:
        class Tree(BaseModel):
            model_config = ConfigDict(extra="allow")
            left: Any = None
            right: Any = None

        tree: Any = None
        for _ in range(40):
            tree = Tree(left=tree, right=tree)
        extra = Tree.model_validate({"more": tree})
        for data in (tree, extra):
            with pytest.raises(PayloadTooLarge):
                encode(data, Tree)

    def test_what_it_makes_of_a_dict_counts_for_the_limit(self) -> None:
        class Padded(BaseModel):
            text: str = "x" * 1_000

        with pytest.raises(PayloadTooLarge):
            codec.encode({}, Padded, what="job", bytes_max=500)


class TestAWorker:
    def test_gives_handle_the_model_and_function_jobs_too(self) -> None:
        queue = JobQueue(create_driver("memory://"))
        seen: list[object] = []

        class Ship(Job[Order]):
            name = "pydantic.ship"

            def handle(self, data: Order) -> None:
                seen.append(data)

        @job(name="pydantic.note")
        def note(order: Order, line: Line, context: JobContext, rest: list[Line] = []) -> None:  # noqa: B006
            seen.append((order, line, rest))

        queue.push(Ship, ORDER)
        queue.push(note, {"order": ORDER, "line": {"sku": "cd"}})
        assert queue.work("default", 2, concurrency=1).done == 2
        assert seen == [ORDER, (ORDER, Line(sku="cd"), [])]
        with pytest.raises(DataInvalid) as refusal:
            queue.push(note, {"order": ORDER, "line": {"sku": "c"}})
        assert refusal.value.path == "$.line.sku"
        queue.close()

    def test_says_what_no_longer_fits_without_the_value(self) -> None:
        with pytest.raises(PayloadNotDecodable, match=r"at least 2 characters at \$\.sku") as refusal:
            decode('{"sku":"s"}', Line)
        assert "input_value" not in str(refusal.value)


def test_pydantic_is_not_imported_for_those_who_do_not_use_it() -> None:
    program = (
        "import sys, dataclasses, datetime\n"
        "from protojobs.jobs import codec\n"
        "@dataclasses.dataclass\nclass D:\n    at: datetime.datetime\n"
        "data = D(datetime.datetime.now(datetime.UTC))\n"
        "assert codec.decode(codec.encode(data, D, what='x'), D, what='x') == data\n"
        "print(sorted(name for name in sys.modules if name.startswith('pydantic')))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"
