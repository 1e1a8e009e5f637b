from importlib import import_module

from hypothesis import given
from hypothesis import strategies as st

from ssmd.cli.lazy_group import COMMANDS, hoisted

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


def test_the_parts_of_a_group_are_its_commands_of_other_modules() -> None:
    for command in COMMANDS:
        whole = import_module(command.module).app.registered_commands
        elsewhere = {one.name: one.callback.__module__ for one in whole if one.callback.__module__ != command.module}
        assert not command.parts or dict(command.parts) == elsewhere
        for name, module in command.parts.items():
            assert name in [one.name for one in import_module(module).app.registered_commands]
