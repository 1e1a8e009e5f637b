from hypothesis import given
from hypothesis import strategies as st

from ssmd.cli.lazy_group import hoisted

WORDS = st.lists(st.sampled_from(["--env", "-e", "--env=a", "--workspace", "--debug", "--no-color", "--", "day", "-o", "x"]))


@given(WORDS)
def test_no_argument_is_lost_or_invented_and_the_rest_keeps_its_order(arguments: list[str]) -> None:
    result = hoisted(arguments)
    assert sorted(result) == sorted(arguments)
    assert hoisted(result) == result
    if "--" in arguments:
        place = arguments.index("--")
        if arguments[place - 1 : place] not in (["--env"], ["-e"], ["--workspace"]):
            assert result[-len(arguments[place:]) :] == arguments[place:]


def test_values_move_with_their_options() -> None:
    assert hoisted(["day", "start", "-e", "dev", "--date", "2026-05-14", "--debug"]) == [
        "-e",
        "dev",
        "--debug",
        "day",
        "start",
        "--date",
        "2026-05-14",
    ]
