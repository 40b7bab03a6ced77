import io
import re

from fleetfn_cli.screen import Screen, counted, rows, width


class Terminal(io.StringIO):
    def isatty(self):
        return True


def bare(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_columns_are_as_wide_as_their_longest_cell():
    assert rows(["A", "B"], [["long", "x"], ["s", "y"]]) == "A     B\nlong  x\ns     y"


def test_columns_know_colours_and_wide_letters():
    assert width("\x1b[31mred\x1b[0m") == 3
    assert width("车辆") == 4
    assert rows(["", ""], [["车", "x"], ["ab", "y"]]) == "车  x\nab  y"


def test_counts_have_their_plural():
    assert [counted(n, "letter") for n in (0, 1, 2, 1200)] == ["0 letters", "1 letter", "2 letters", "1,200 letters"]


def test_colour_only_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen(out=io.StringIO(), err=io.StringIO()).paint("x", "red") == "x"
    assert Screen(out=Terminal(), err=Terminal()).paint("x", "red") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Screen(out=Terminal(), err=Terminal()).paint("x", "red") == "x"


def test_steps_are_plain_lines_off_a_terminal():
    err = io.StringIO()
    with Screen(err=err).steps("checking") as step:
        step("importing [x]")
    assert err.getvalue() == "checking\nimporting [x]\n"


def test_quiet_leaves_only_results_warnings_and_errors():
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(quiet=True, out=out, err=err)
    with screen.steps("checking") as step:
        step("importing")
    screen.say("remark")
    screen.next_steps(("fn list", "look"))
    screen.warn("careful")
    screen.line("result")
    assert (out.getvalue(), err.getvalue()) == ("result\n", "Warning: careful\n")


def test_on_a_terminal_done_steps_stay_and_other_lines_go_above_the_spinner(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    screen = Screen(out=Terminal(), err=err)
    with screen.steps("checking") as step:
        screen.say("remark [with] brackets")
        step("importing [x]")
    lines = [line.strip() for line in bare(err.getvalue()).replace("\r", "\n").splitlines()]
    assert "remark [with] brackets" in lines
    assert "checking" in lines
    assert "importing [x]" in lines


def test_on_a_terminal_progress_leaves_no_history(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    with Screen(out=Terminal(), err=err).steps(keep=False) as step:
        step("10 sent")
        step("20 sent")
    lines = [line.strip() for line in bare(err.getvalue()).replace("\r", "\n").splitlines()]
    assert "10 sent" not in lines
