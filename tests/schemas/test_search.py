"""Search: what is found, in which order, through which filters, and that secrets take no part in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from schemas import services
from schemas.records import SECRET_MARK
from schemas.search import Found, Query, Search, errors_forgiven, fold, within, words_of
from schemas.service_schema import ServiceSchema


@dataclass
class Present:
    """A service; `values` is replaced where one of them changes."""

    service: str
    schema: ServiceSchema
    values: Callable[[], Mapping[str, Any]]


def present(name: str, model: type[BaseModel], **changed: Any) -> Present:
    schema = ServiceSchema(name, model)
    values = {**dict.fromkeys(schema.keys), **schema.defaults(), **changed}
    return Present(name, schema, lambda: values)


def setting(default, title, description="", help_text="", *, advanced=False):
    extra = {"x-help": help_text, "x-complexity": "advanced" if advanced else "simple"}
    return Field(default=default, title=title, description=description, json_schema_extra=extra)


class Lamp(BaseModel):
    brightness: int = setting(80, "Brightness", "How bright it is.", "Higher: more light, more power.")
    brightness_at_night: int = setting(10, "Night light", "How bright it is after sunset.", advanced=True)
    maximum_brightness: int = setting(100, "Upper bound", "It never is brighter.")
    color_temperature: float = setting(0.5, "Größe der Wärme", "From cold to warm.", "Depends on the brightness.")
    api_key: SecretStr | None = setting(None, "Key of the maker", "For the maker's server.")
    server: str = setting("https://lamp.example/v2", "Server", "Where its maker listens.", advanced=True)
    enabled: bool = setting(True, "In use", "Whether it shines.")


LAMP = present("kitchen-lamp", Lamp)
OTHER = present("bath", Lamp, brightness=33, api_key=SECRET_MARK)
ALL = [LAMP, OTHER]
SIX = [present(name.lower(), getattr(services, name)) for name in services.__all__]


def found(text: str, of=(LAMP,), **filters: Any) -> list[str]:
    return [each.field.key for each in Search().find(Query(text, **filters), of).results]


def scored(text: str, of=(LAMP,)) -> dict[str, float]:
    return {each.field.key: each.score for each in Search().find(Query(text), of).results}


class TestOrder:
    def test_the_key_then_its_beginning_then_a_word_of_it_then_the_description(self):
        assert scored("brightness") == {
            "brightness": 1.0,
            "brightness_at_night": 0.9,
            "maximum_brightness": 0.7,
            "color_temperature": 0.4,
        }

    def test_the_beginning_of_a_word_comes_behind_the_word(self):
        assert scored("max") == {"maximum_brightness": 0.9}
        assert scored("tempera") == {"color_temperature": 0.6}
        assert scored("perature") == {"color_temperature": 0.3}
        assert found("ur") == []  # too short for the middle of a word

    def test_by_value(self):
        assert scored("80") == {"brightness": 0.5}
        assert scored("maker example", [OTHER]) == {"server": 0.425}
        assert scored("0.5") == {"color_temperature": 0.5}
        assert scored("TRUE") == {"enabled": 0.5}
        assert found("33", ALL) == ["brightness"]
        assert found("0") == ["color_temperature"]  # too short for the middle of 80 and 100

    def test_in_all_of_a_long_value(self):
        long = " ".join(f"w{number:05}" for number in range(9000))
        telling = present("bath", Lamp, server=long)
        assert all(found(f"w{number:05}", [telling]) == ["server"] for number in range(0, 9000, 90))
        assert scored(long.upper(), [telling]) == {"server": 0.5}

    def test_by_service(self):
        assert len(found("kitchen", ALL)) == len(LAMP.schema.keys)
        both = Search().find(Query("bath brightness"), ALL)
        assert both.results[0].field.key == "brightness"
        assert {each.service for each in both.results} == {"bath"}

    def test_equals_keep_the_order_of_services_and_model(self):
        answer = Search().find(Query("brightness"), ALL)
        assert [(each.service, each.field.key) for each in answer.results[:4]] == [
            ("kitchen-lamp", "brightness"),
            ("bath", "brightness"),
            ("kitchen-lamp", "brightness_at_night"),
            ("bath", "brightness_at_night"),
        ]
        everything = Search().find(Query("", max_results=200), ALL)
        assert [(each.service, each.field.key) for each in everything.results] == [
            (each.service, key) for each in ALL for key in each.schema.keys
        ]

    def test_every_word_has_to_be_found(self):
        assert found("maximum brightness") == ["maximum_brightness"]
        assert found("brightness maximum") == ["maximum_brightness"]
        assert found("maximum whatever") == []

    def test_total_counts_what_is_cut_off(self):
        answer = Search().find(Query("", max_results=3), ALL)
        assert (len(answer.results), answer.total) == (3, 14)
        assert answer.results == Search().find(Query("", max_results=200), ALL).results[:3]


class TestFolding:
    @pytest.mark.parametrize(
        "text", ["COLOR-Temperature", "color temperature", " color__temperature ", "cólor-temperature"]
    )
    def test_case_diacritics_and_separators_do_not_count(self, text):
        assert scored(text) == {"color_temperature": 1.0}

    @pytest.mark.parametrize("text", ["grosse", "GRÖSSE", "große", "Gro\u0308ße", "wärme", "warme"])
    def test_in_titles_too(self, text):
        assert found(text) == ["color_temperature"]

    @given(st.text(max_size=50))
    @example("İ")
    @example("\u1e9e")
    @example("\u03a3\u0345")
    def test_folding_twice_is_folding_once(self, text):
        assert fold(fold(text)) == fold(text)

    @pytest.mark.parametrize("text", ["", "  ", "_", " - _"])
    def test_nothing_is_everything(self, text):
        assert found(text) == list(LAMP.schema.keys)
        assert scored(text).popitem()[1] == 1.0

    @pytest.mark.parametrize("text", ["?", "...", "💡"])
    def test_marks_alone_find_nothing(self, text):
        assert found(text) == []


class TestTypingErrors:
    @pytest.mark.parametrize("text", ["brihgtness", "brigthnes", "birghtnes", "brightnessss", "brightns"])
    def test_two_are_forgiven_in_a_long_word(self, text):
        assert "brightness" in found(text)

    @pytest.mark.parametrize(
        ("text", "forgiven"),
        [
            ("colr", True),
            ("oclor", True),
            ("colour", True),
            ("clr", False),
            ("cloro", False),
            ("usa", False),
            ("mxiamum", False),
        ],
    )
    def test_one_in_a_short_one(self, text, forgiven):
        assert found(text) == (["color_temperature"] if forgiven else [])

    def test_only_where_nothing_better_is_found(self):
        class Near(BaseModel):
            tone: int = 1
            zone: int = 1

        near = [present("near", Near)]
        assert scored("zone", near) == {"zone": 1.0}
        assert scored("xone", near) == {"tone": 0.25, "zone": 0.25}

    def test_not_in_descriptions_values_or_services(self):
        assert found("sunste") == []
        assert found("exmaple") == []
        assert found("kitchne") == []

    def test_beside_a_word_that_is_right(self):
        assert found("maximun brightness") == ["maximum_brightness"]

    def test_fewer_come_first(self):
        class Close(BaseModel):
            wavelenxxh: int = 1
            wavelengtx: int = 1

        assert found("wavelength", [present("close", Close)]) == ["wavelengtx", "wavelenxxh"]

    @settings(max_examples=500, deadline=None)
    @given(st.text("abc", max_size=7), st.text("abc", max_size=7), st.integers(0, 2))
    def test_the_distance(self, a, b, errors):
        assert within(a, b, errors) == (_distance(a, b) <= errors)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_a_mistyped_word_of_a_key_is_found(self, data):
        key = data.draw(st.sampled_from([key for each in SIX for key in each.schema.keys]))
        word = data.draw(st.sampled_from(fold(key).split()))
        at = data.draw(st.integers(0, len(word) - 1))
        wrong = data.draw(
            st.sampled_from(
                [
                    word[:at] + word[at + 1 :],
                    f"{word[:at]}q{word[at:]}",
                    f"{word[:at]}q{word[at + 1 :]}",
                    word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
                ]
            )
        )
        asked = Search().find(Query(wrong, max_results=200), SIX)
        # Where it is another word now, that one is found.
        assert errors_forgiven(wrong) == 0 or asked.total > 0


class TestFilters:
    def test_changed_from_the_default(self):
        pinned = present("bath", Lamp, brightness=80, maximum_brightness=60, api_key=SECRET_MARK)
        assert found("", [pinned], changed_only=True) == ["maximum_brightness", "api_key"]
        assert found("", changed_only=True) == []

    def test_advanced_ones_in_simple_mode(self):
        assert found("brightness", simple=True) == ["brightness", "maximum_brightness", "color_temperature"]
        assert found("Brightness-at night", simple=True) == ["brightness_at_night"]
        assert found("brightness at", simple=True) == []
        assert found("server", simple=True) == ["server", "api_key"]
        assert "server" not in found("", simple=True)

    def test_what_is_filtered_out_hides_no_mistyped_one(self):
        # The value of a text setting has the wrong spelling.
        spelled = present("spelled", Lamp, server="brigtness")
        assert found("brigtness", [spelled]) == ["server"]
        assert found("brigtness", [spelled], type="integer")[0] == "brightness"


class TestChanges:
    def test_a_new_value_is_found_and_the_old_one_is_not(self):
        search = Search()
        assert search.find(Query("80"), [LAMP]).total == 1
        changed = present("kitchen-lamp", Lamp, brightness=81)
        changed.schema = LAMP.schema
        assert search.find(Query("80"), [changed]).total == 0
        assert search.find(Query("81"), [changed]).results[0].value == 81

    def test_a_service_that_has_gone_leaves_nothing(self):
        search = Search()
        search.find(Query("kitchen"), ALL)
        search.find(Query("kitchen"), [])
        assert (search._models, search._values) == ({}, {})

    def test_services_of_one_model_have_one_copy_of_its_texts(self):
        search = Search()
        many = [Present(f"lamp-{number}", LAMP.schema.of(f"lamp-{number}"), LAMP.values) for number in range(20)]
        assert search.find(Query("brightness"), many).total == 80
        assert len(search._models) == 1

    def test_what_takes_long_is_done_in_steps(self):
        search = Search()
        first, again = (len(list(search.steps(Query("brightness"), ALL))) for _ in range(2))
        # Texts once, values of each service, setting by setting.
        assert first >= 3 * len(Lamp.model_fields) > again > 2

    def test_searches_may_be_interleaved(self):
        search = Search()
        steps = [search.steps(Query(text), of) for text, of in (("brightness", ALL), ("", [OTHER]), ("80", ALL))]
        ended: dict[int, Found] = {}
        while len(ended) < len(steps):
            for number, each in enumerate(steps):
                if number not in ended:
                    try:
                        next(each)
                    except StopIteration as end:
                        ended[number] = end.value
        assert [ended[number].total for number in range(3)] == [8, 7, 1]


queries = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(sorted({word for each in SIX for key in each.schema.keys for word in words_of(key)})),
        max_size=3,
    ).map(" ".join),
    st.sampled_from(["true", "0.5", "tresh", "voluem", "e", "the", "worker", "http", "thershold"]),
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "service": st.sampled_from([each.service for each in SIX]),
        "complexity": st.sampled_from(["simple", "advanced"]),
        "type": st.sampled_from(["string", "integer", "float", "boolean", "enum", "path", "secret"]),
        "changed_only": st.booleans(),
        "simple": st.booleans(),
        "max_results": st.integers(1, 200),
    },
)
SEARCH = Search()


@settings(max_examples=300, deadline=None)
@given(text=queries, chosen=filters)
def test_every_result_passes_the_filters_and_stands_in_order(text, chosen):
    query = Query(text, **chosen)
    answer = SEARCH.find(query, SIX)
    assert len(answer.results) == min(answer.total, query.max_results)
    place = {each.service: number for number, each in enumerate(SIX)}
    for each in answer.results:
        assert query.service in {None, each.service}
        assert query.complexity in {None, each.field.complexity}
        assert query.type in {None, each.field.type}
        assert not query.simple or each.field.complexity == "simple" or fold(each.field.key) == fold(text)
        assert not query.changed_only
        assert 0 < each.score <= 1
        assert each.value == SIX[place[each.service]].values()[each.field.key]
    order = [
        (-each.score, place[each.service], SIX[place[each.service]].schema.keys.index(each.field.key))
        for each in answer.results
    ]
    assert all(one < other for one, other in pairwise(order))


@pytest.mark.parametrize(("service", "key"), [(each.service, key) for each in SIX for key in each.schema.keys])
def test_an_exact_key_is_first(service, key):
    answer = SEARCH.find(Query(key.upper().replace("_", "-")), SIX)
    assert (answer.results[0].field.key, answer.results[0].score) == (key, 1.0)
    assert all(each.score < 1 or each.field.key == key for each in answer.results)


class Private(BaseModel):
    plain: str = "nothing"
    secret: SecretStr | None = None


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(max_size=12),
    one=st.text(max_size=12),
    other=st.text(max_size=12),
    chosen=st.fixed_dictionaries({}, optional={"changed_only": st.booleans(), "simple": st.booleans()}),
)
@example(text="hunter2", one="hunter2", other="else", chosen={})
@example(text="****", one="hunter2", other="else", chosen={})
def test_a_secret_is_never_found_by_its_value(text, one, other, chosen):
    # Whatever stands there, even if it were in clear: nothing of it is looked at.
    of_one, of_other = (present("private", Private, secret=value) for value in (one, other))
    answers = [Search().find(Query(text, **chosen), [each]) for each in (of_one, of_other)]
    told = [[(each.field.key, each.score) for each in answer.results] for answer in answers]
    assert told[0] == told[1]
    assert answers[0].total == answers[1].total


def test_the_mask_finds_nothing():
    assert found(SECRET_MARK, [OTHER]) == []
    assert found("hunter2", [present("private", Private, secret="hunter2")]) == []


def _distance(a: str, b: str) -> int:
    """Optimal string alignment, by the table."""
    table = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]
