from io import StringIO

from search.events import EpochReported, Noted, Promoted, Pruned
from search.history import History
from search.view.progress import Lines, View


def lines(view, config, capsys, events):
    view.watch(config, History())
    for event in events:
        view.happened(event)
    return capsys.readouterr().err.splitlines()


def test_without_a_terminal_there_is_one_line_per_event(small_config, small_events, capsys):
    later = [
        EpochReported(0, 1, {}, "fail", 2, "it gave None"),
        EpochReported(3, 1, {"v": 0.5}, "pause"),
        Promoted(3),
        Pruned(3, "not among the best"),
        Noted("winner", {"number": 0, "reason": "best mean v"}),
        Noted("test_opened", {"times": 2}),
        Noted("other", {}),
    ]
    written = lines(Lines(), small_config, capsys, [*small_events[:11], *later])
    assert written == [
        "trial 0 asked: rate 0.001235, kind a",
        "trial 0 epoch 1: v 0.2500",
        "trial 0 epoch 2: v 0.7500",
        "trial 0 epoch 3: v 0.5000, completed",
        "trial 1 asked: rate 0.1, kind [/b] [red]x",
        "trial 1 epoch 1: v 0.1250, pruned (behind others at epoch 1)",
        "trial 2 asked: rate 0.2",
        "trial 2 failed: no [memory]",
        "trial 0.2 epoch 1: v nan, failed (it gave None)",
        "trial 3 epoch 1: v 0.5000, paused",
        "trial 3 promoted",
        "trial 3 pruned: not among the best",
        "winner: trial 0; best mean v",
        "test set opened, time 2",
        "noted other",
    ]


def test_a_step_is_one_line_when_it_is_done(capsys):
    view = Lines()
    for done in range(3):
        view.preparing("checking images", done, 2)
    view.preparing("starting Ray", 0, 1)
    view.preparing("starting Ray", 1, 1)
    assert capsys.readouterr().err.splitlines() == ["checking images: 2 done", "starting Ray: done"]


def test_quiet_is_quiet(small_config, small_events, capsys):
    assert lines(View(), small_config, capsys, small_events) == []
    View().say("it")
    View().preparing("it", 1, 1)
    assert capsys.readouterr() == ("", "")


def test_lines_go_to_another_stream_where_one_is_given(small_config, small_events, capsys):
    stream = StringIO()
    assert lines(Lines(stream), small_config, capsys, small_events[:2]) == []
    assert stream.getvalue() == "trial 0 asked: rate 0.001235, kind a\n"
