import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from actors.broker.rules import ANONYMOUS, Principal, Role, may_publish, may_read, may_subscribe
from actors.mqtt.topics import is_filter, is_topic, matches, overlaps

SUPERVISOR = Principal("supervisor", Role.SUPERVISOR)
STT = Principal("stt", Role.WORKER, "stt", "system/health/stt-worker")
READER = Principal("reader", Role.READER)
EVERYBODY = (SUPERVISOR, STT, READER, ANONYMOUS)

LEVELS = ("system", "config", "health", "stt", "a", "")
TOPICS = ["/".join(each) for depth in (1, 2, 3, 4) for each in itertools.product(LEVELS, repeat=depth)]
TOPICS = [topic for topic in TOPICS if topic]

topics = st.lists(st.sampled_from((*LEVELS, "$SYS", "é")), min_size=1, max_size=5).map("/".join).filter(bool)
filters = (
    st.lists(st.sampled_from((*LEVELS, "+", "+", "#", "$SYS")), min_size=1, max_size=5).map("/".join).filter(is_filter)
)
short_filters = (
    st.lists(st.sampled_from((*LEVELS, "+", "+", "#")), min_size=1, max_size=3).map("/".join).filter(is_filter)
)


@pytest.mark.parametrize("topic", ["system/config/stt", "/", "a//b", "$SYS/x", "ümlaut/空", " ", "a" * 4096, "/" * 199])
def test_topics(topic):
    assert is_topic(topic)
    assert is_filter(topic)


@pytest.mark.parametrize("topic", ["", "a\0", "a" * 4097, "ü" * 2049, "/" * 200])
def test_what_is_no_topic_is_no_filter(topic):
    assert not is_topic(topic)
    assert not is_filter(topic)


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/#", "+/+/#", "/+", "+/b"])
def test_wildcards_are_for_filters_only(topic_filter):
    assert is_filter(topic_filter)
    assert not is_topic(topic_filter)


@pytest.mark.parametrize("topic_filter", ["a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+/c", "##", "++"])
def test_malformed_wildcards(topic_filter):
    assert not is_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [  # from section 4.7 of the specification
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("t/+", "t/a/b", False),
    ],
)
def test_matching(topic_filter, topic, expected):
    assert matches(topic_filter, topic) is expected


@given(filters, topics)
def test_matching_agrees_with_paho(topic_filter, topic):
    assert matches(topic_filter, topic) == topic_matches_sub(topic_filter, topic)


@settings(deadline=None)  # the oracle tries every topic
@given(short_filters, short_filters)
def test_filters_overlap_where_a_topic_matches_both(one, other):
    assert overlaps(one, other) == any(matches(one, topic) and matches(other, topic) for topic in TOPICS)


PROTECTED = [
    "system/config/stt",
    "system/config/tts",
    "system/control/stt",
    "system/state/stt",
    "system/events",
    "system/health/config-manager",
    "system/health/tts",
    "system/applied/tts",
    "system/applied",
    "system/applied/stt/more",
    "system",
    "system/",
    "system/new",
]


@pytest.mark.parametrize("topic", PROTECTED)
def test_only_the_supervisor_writes_protected_topics(topic):
    assert [who for who in EVERYBODY if may_publish(who, topic)] == [SUPERVISOR]


@pytest.mark.parametrize(
    "topic", ["system/applied/stt", "system/health/stt-worker", "home/light", "/system/x", "System/x"]
)
def test_what_a_worker_writes(topic):
    assert [who for who in EVERYBODY if may_publish(who, topic)] == [SUPERVISOR, STT]


def test_a_health_topic_of_another_name_replaces_the_usual_one():
    assert not may_publish(STT, "system/health/stt")


@pytest.mark.parametrize("service", ["config-manager"])
def test_a_service_cannot_take_the_supervisors_health_topic(service):
    assert not may_publish(
        Principal(service, Role.WORKER, service, f"system/health/{service}"), f"system/health/{service}"
    )


@given(topics.map(lambda topic: "$" + topic))
def test_dollar_topics_belong_to_nobody(topic):
    assert not any(may_publish(who, topic) or may_read(who, topic) for who in EVERYBODY)


@pytest.mark.parametrize(
    "topic",
    [
        "system/config/stt",
        "system/control/stt",
        "system/health/tts",
        "system/state/tts",
        "system/health/config-manager",
    ],
)
def test_what_a_worker_reads_below_system(topic):
    assert may_read(STT, topic)


@pytest.mark.parametrize("topic", ["system/config/tts", "system/control/tts", "system/applied/stt", "system/events"])
def test_what_a_worker_does_not_read(topic):
    assert not may_read(STT, topic)
    assert may_read(READER, topic)


@given(topics)
def test_readers_read_system_and_write_nothing(topic):
    inside = topic == "system" or topic.startswith("system/")
    for who in (READER, ANONYMOUS):
        assert may_read(who, topic) is inside
        assert not may_publish(who, topic)


@settings(deadline=None)  # the oracle tries every topic
@given(short_filters, st.sampled_from(EVERYBODY))
def test_a_subscription_is_granted_where_it_can_deliver_something(topic_filter, who):
    known = [*TOPICS, "system/control/stt", "system/state/stt"]
    assert may_subscribe(who, topic_filter) == any(
        matches(topic_filter, topic) and may_read(who, topic) for topic in known
    )


@pytest.mark.parametrize("topic_filter", ["#", "+/config/stt", "system/#", "system/+/stt", "system/config/+", "home/#"])
def test_wildcards_over_more_than_a_worker_reads_are_granted(topic_filter):
    assert may_subscribe(STT, topic_filter)


@pytest.mark.parametrize("topic_filter", ["system/config/tts", "system/events", "system/applied/#", "$SYS/#"])
def test_subscriptions_that_can_deliver_nothing_are_refused(topic_filter):
    assert not may_subscribe(STT, topic_filter)
