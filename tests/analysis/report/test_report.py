"""What the report says of studies in every state; how it looks is tested in a browser."""

import json
import re
import shutil
import warnings
from dataclasses import replace

import pytest

from analysis.report import answer, course, data, final, space, write_comparison, write_report
from analysis.report.run import read_run
from analysis.report.side_by_side import comparison_page, contrast_runs, rows_side_by_side
from search.errors import ConfigurationError
from search.events import Asked, EpochReported, Failed, Noted, SessionOpened, Started
from search.ledger import Ledger
from tests.fakes.drawn_study import Drawing, draw_run, write_events

BEGUN = Drawing(trials=3, open_trials=3, failing=0, reruns=0, evaluated=False)
SECTIONS = [
    answer.answer, space.importance, space.depth, space.interaction, space.ends, course.convergence, course.pruning,
    space.parallel, course.curves, course.workers, course.failures, course.trial_table, data.data, final.evaluation,
    data.repetition,
]  # fmt: skip


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_run(tmp_path_factory.mktemp("runs") / "lungs")


@pytest.fixture(scope="module")
def run(drawn):
    return read_run(drawn, {"freeze_depth": (0, 5)})


def told(section):
    return " ".join(section.findings)


def study(tmp_path, *events, **settings):
    """A run with these events, each a second after the one before."""
    root = draw_run(tmp_path / "study", replace(BEGUN, settings=settings))
    write_events(root / "study.db", enumerate([SessionOpened("host", 1), *events]))
    return read_run(root, {})


def completed(number, *values, repeat=0, metric="val_auc", **point):
    point = {"learning_rate": 1e-3, "freeze_depth": 2, **point}
    verdicts = ["continue"] * (len(values) - 1) + ["complete"]
    epochs = [
        EpochReported(number, epoch, {metric: value}, verdict, repeat, seconds={"train": 1.0})
        for epoch, (value, verdict) in enumerate(zip(values, verdicts, strict=True), 1)
    ]
    return [Asked(number, point, 0, "rerun" if repeat else "sampler", repeat), Started(number, repeat, "w"), *epochs]


def test_the_answer_is_the_winner_with_its_reruns_its_lead_and_its_test_scores(run):
    section = answer.answer(run)
    winner = run.finalists[0]
    assert section.findings[0].startswith("Fine-tune with learning rate ")
    assert f"is {winner.mean:.3f} ± {winner.standard_error:.2g} (mean ± standard error)" in section.findings[1]
    assert f"trial {winner.trial.number} of 24" in section.findings[1]
    assert f"The next finalist, trial {run.finalists[1].trial.number}," in section.findings[2]
    assert "accuracy 0.800 [0.700, 0.900] and AUC 0.800 [0.700, 0.900]" in section.findings[3]
    assert [block.kind for block in section.blocks] == ["facts", "plot", "table"]
    assert dict(section.blocks[0].pairs)["freeze depth"] == str(winner.trial.parameters["freeze_depth"])


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((0.90, 0.91), (0.50, 0.51), "a clear lead"),
        ((0.90, 0.94), (0.86, 0.88), "a likely lead"),
        ((0.90, 0.80), (0.84, 0.82), "too close to call"),
    ],
)
def test_a_lead_is_called_by_its_standard_errors(tmp_path, first, second, verdict):
    reruns = [
        event
        for number, values in enumerate((first, second))
        for repeat, value in enumerate(values, 1)
        for event in completed(number, value, repeat=repeat)
    ]
    found = study(tmp_path, *completed(0, 0.9), *completed(1, 0.8), *reruns)
    assert verdict in answer.answer(found).findings[2]


def test_without_reruns_luck_is_spoken_of(tmp_path):
    found = study(tmp_path, *completed(0, 0.9), *completed(1, 0.8))
    text = told(answer.answer(found))
    assert "was not run again on fresh seeds: as the best of 2 trials, part of that is luck" in text
    assert "`thawline evaluate study` opens it, once" in text


def test_that_every_rerun_of_the_winner_failed_is_not_called_no_rerun(tmp_path):
    failed = [Asked(0, {"learning_rate": 1e-3}, 0, "rerun", 1), Started(0, 1, "w"), Failed(0, "no memory", 1)]
    text = told(answer.answer(study(tmp_path, *completed(0, 0.9), *failed)))
    assert "every rerun of it on a fresh seed failed" in text
    assert "reruns the finalists" not in text


def test_the_lead_is_only_told_of_the_winner_that_is_named(tmp_path):
    reruns = [*completed(0, 0.8, repeat=1), *completed(1, 0.9, repeat=1)]
    named = Noted("winner", {"number": 0, "parameters": {}, "value": 0.9, "best_epoch": 1, "mean": 0.8, "seeds": 1})
    text = told(answer.answer(study(tmp_path, *completed(0, 0.9), *completed(1, 0.8), *reruns, named)))
    assert "next finalist" not in text


def test_a_second_that_is_ahead_but_failed_more_often_makes_no_lead(tmp_path):
    failed = [Asked(1, {"learning_rate": 1e-3}, 0, "rerun", 3), Started(1, 3, "w"), Failed(1, "no memory", 3)]
    reruns = [
        event
        for number, values in enumerate(((0.7, 0.72), (0.9, 0.92)))
        for repeat, value in enumerate(values, 1)
        for event in completed(number, value, repeat=repeat)
    ]
    found = study(tmp_path, *completed(0, 0.9), *completed(1, 0.8), *reruns, *failed)
    assert answer.answer(found).findings[2].endswith("ahead, but with more failed reruns.")


def test_test_figures_of_an_earlier_model_are_warned_of_in_both_places(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "lungs")
    (root / "final" / "model.json").write_text(json.dumps({"sha256": "1" * 64}))
    with Ledger(root / "study.db") as ledger:
        ledger.append(Noted("test_opened", {"at": "2026-11-29", "times": 1, "model_sha256": "0" * 64}))
        ledger.append(Noted("test_opened", {"at": "2026-11-29", "times": 2, "model_sha256": "1" * 64}))  # and cut off
    found = read_run(root, {})
    assert found.trained_since
    for section in (answer.answer(found), final.evaluation(found)):
        (warning,) = [block for block in section.blocks if block.kind == "warnings"]
        assert warning.sentences[0].startswith("The test figures belong to an earlier model;")
    assert "an earlier model reached accuracy" in told(answer.answer(found))
    curves = [block for block in final.evaluation(found).blocks if "model trained since" in getattr(block, "title", "")]
    assert [len(curve.figure.layout.shapes) for curve in curves] == [0, 0]


def test_test_figures_of_an_earlier_winner_are_warned_of(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "lungs")
    metrics = root / "final" / "metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "trial": {"number": 999}}))
    (warning,) = [block for block in answer.answer(read_run(root, {})).blocks if block.kind == "warnings"]
    assert warning.sentences[0].startswith("The test figures belong to trial 999")


def test_a_search_that_goes_on_does_not_recommend_yet(tmp_path):
    found = study(tmp_path, *completed(0, 0.9), Asked(1, {"learning_rate": 1e-3}, 0))
    assert answer.answer(found).findings[0].startswith("So far (1 trial ended): learning rate 0.001")


def test_reruns_that_have_not_ended_keep_the_recommendation_open(tmp_path):
    reruns = [*completed(1, 0.85, repeat=1), Asked(0, {"learning_rate": 1e-3}, 0, "rerun", 1), Started(0, 1, "w")]
    found = study(tmp_path, *completed(0, 0.95), *completed(1, 0.91), *completed(2, 0.5), *reruns)
    assert answer.answer(found).findings[0].startswith("So far (1 of 2 reruns not ended): learning rate")


def test_reruns_without_spread_are_not_called_one_seed(tmp_path):
    reruns = [event for n in (0, 1) for r in (1, 2) for event in completed(n, 1.0, repeat=r)]
    text = told(answer.answer(study(tmp_path, *completed(0, 1.0), *completed(1, 1.0), *reruns)))
    assert "Reruns of one finalist gave one value" in text
    assert "One seed" not in text


def test_what_a_failed_trial_reached_is_no_best(tmp_path):
    diverged = [
        Asked(1, {"learning_rate": 1e-2, "freeze_depth": 2}, 0), Started(1),
        EpochReported(1, 1, {"val_auc": 0.95}, "continue"), Failed(1, "loss is NaN"),
    ]  # fmt: skip
    found = study(tmp_path, *completed(0, 0.8, learning_rate=1e-4), *diverged, *completed(2, 0.7, learning_rate=1e-4))
    assert "The best learning rate tried was 1e-4 at depth 2" in told(space.interaction(found))
    assert "from 0.700 to 0.800" in told(space.parallel(found))
    assert "trial 1" not in [trace.name for trace in course.curves(found).blocks[0].figure.data]


def test_equal_values_are_not_called_too_few(tmp_path):
    runs = [event for n in range(24) for event in completed(n, 0.5, learning_rate=1e-5 * (n + 1))]
    assert told(space.importance(study(tmp_path, *runs))).startswith("Nothing to tell: all values are equal")


def test_importance_says_what_stands_out_and_what_it_lacks(run, tmp_path):
    assert space.importance(run).blocks[0].kind == "plot"
    few = told(space.importance(study(tmp_path, *completed(0, 0.9))))
    assert few.startswith("Too few trials to tell: 1 trial with a value, and it takes 20")


def test_depth_is_compared_at_equal_epochs_and_at_equal_time(run):
    section = space.depth(run)
    assert [block.title.partition(":")[0] for block in section.blocks if block.kind == "plot"][:2] == [
        "After 1 epoch",
        "After 9 epochs",
    ]
    assert sum("of training" in block.title for block in section.blocks if block.kind == "plot") == 2
    assert section.findings[0].startswith("After 1 epoch, when no trial has been pruned yet, depth ")
    rows = section.blocks[-1].rows
    assert sum(int(row[1]) for row in rows) == len(run.valued)
    ranges = {block.figure.layout.yaxis.range for block in section.blocks if block.kind == "plot"}
    assert len(ranges) == 1


def test_a_best_value_at_an_end_is_told_and_a_limit_is_no_end(tmp_path):
    found = study(tmp_path, *completed(0, 0.9, learning_rate=1e-5, freeze_depth=5))
    text = told(space.ends(found))
    assert "learning_rate: the best value, 1e-05, lies at the low end" in text
    assert "freeze_depth: the best value, 5, lies at the high end" in text
    limited = replace(found, limits={"freeze_depth": (0, 5)})
    assert "freeze_depth" not in told(space.ends(limited))


def test_convergence_names_the_trial_that_brought_the_best(tmp_path):
    found = study(tmp_path, *completed(0, 0.5), *completed(1, 0.9), *completed(2, 0.6))
    assert told(course.convergence(found)).startswith("The best value, 0.900, came from trial 1, after 67 % of")
    assert told(course.convergence(found)).endswith("The 1 trial after it brought nothing better.")


def test_a_pruned_trial_might_have_won_when_others_gained_what_it_lacked(tmp_path):
    pruned = [Asked(2, {}, 0), Started(2), EpochReported(2, 1, {"val_auc": 0.6}, "prune")]
    runs = [*completed(0, 0.5, 0.9), *completed(1, 0.7, 0.8)]
    found = study(tmp_path, *runs, *pruned, budget={"trials": 3, "epochs": 2})
    first, second = course.pruning(found).findings
    assert first.startswith("1 trial ended early, which saved 1 epoch beside the 5 that were run")
    assert second == (
        "A pruned trial might have won: trial 2 would have had to gain 0.300 after epoch 1, and 1 of "
        "2 completed trials did."
    )


def test_of_pruned_trials_without_a_value_nothing_can_be_told(tmp_path):
    without = [Asked(1, {}, 0), Started(1), EpochReported(1, 1, {}, "prune", reason="the time is used up")]
    pruned = [Asked(2, {}, 0), Started(2), EpochReported(2, 1, {"val_auc": 0.6}, "prune")]
    found = study(tmp_path, *completed(0, 0.5, 0.9), *without)
    assert told(course.pruning(found)).endswith("cannot be told: no pruned trial has a value.")
    found = study(tmp_path / "more", *completed(0, 0.5, 0.9), *without, *pruned)
    assert course.pruning(found).findings[0].endswith(" 1 pruned trial without a value may have won or not.")


def test_a_hopeless_pruned_trial_is_called_so(run):
    assert "would have had to gain" in course.pruning(run).findings[1]


def test_learning_curves_show_the_winner_its_reruns_and_the_next_best(run):
    traces = [trace.name for trace in course.curves(run).blocks[0].figure.data]
    winner = run.winner["number"]
    assert traces[:4] == ["other trials", f"trial {winner}", f"trial {winner}, rerun 1", f"trial {winner}, rerun 2"]
    assert len(traces) == 7


def test_failures_are_counted_by_reason_and_lost_workers_named(tmp_path):
    events = [Asked(0, {}, 0), Started(0), Started(0), Failed(0, "no memory"), Asked(1, {}, 0), Failed(1, "no memory")]
    section = course.failures(study(tmp_path, *events))
    assert section.findings == [
        "2 training runs of 2 failed.",
        "Taken up again after a worker or the driver was lost: trial 0.",
    ]
    assert section.blocks[0].rows == [("no memory", "2", "trial 0 and trial 1")]


def test_the_table_has_every_trial_and_leaves_out_what_nobody_measured(run):
    (table,) = course.trial_table(run).blocks
    assert len(table.rows) == 24
    assert {"number", "value", "freeze_depth", "train_seconds", "val_loss", "seed"} <= set(table.columns)
    assert "step_seconds" not in table.columns
    assert {"val_loss", "seed"} <= table.extra
    assert not {"number", "freeze_depth", "reason"} & table.extra


def test_the_split_is_counted_and_pictures_come_from_the_training_part(run):
    section = data.data(run)
    assert (
        told(section)
        == "60 images of 2 classes, in 30 groups that the split keeps together. No group and no file is in two parts."
    )
    table, gallery = section.blocks
    assert [row[:3] for row in table.rows] == [("train", "36", "18"), ("validation", "12", "6"), ("test", "12", "6")]
    assert {name: len(files) for name, files in gallery.images.items()} == {"ill": 6, "well": 6}


def test_a_leak_is_a_warning(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "lungs")
    split = (root / "split.csv").read_text()
    (root / "split.csv").write_text(
        split.replace("ill/0.png,000ill,ill,ill 0,validation", "ill/0.png,004ill,ill,ill 0,test")
    )
    section = data.data(read_run(root, {}))
    assert "The split leaks." in section.findings
    assert section.blocks[0].sentences == [
        "1 group with images in several parts: ill 0.",
        "2 files with the same bytes in another part: ill/0.png and ill/4.png.",
    ]


def test_the_evaluation_shows_scores_pictures_and_mistakes(run):
    section = final.evaluation(run)
    assert section.findings[0] == "40 images of 20 groups, opened once, after every choice."
    assert section.blocks[0].rows[1] == ("AUC", "0.800 [0.700, 0.900]", "0.800 [0.700, 0.900]")
    assert [block.kind for block in section.blocks] == ["table", *["plot"] * 5, "table"]
    assert re.search(r"Few test groups hold (ill|well) \(\d+\), so the intervals are too narrow", told(section))


@pytest.mark.parametrize("gone", ["metrics.json", "predictions.csv", "history.csv"])
def test_an_evaluation_that_is_not_whole_is_not_shown(drawn, tmp_path, gone):
    root = shutil.copytree(drawn, tmp_path / "lungs")
    (root / "final" / gone).unlink()
    assert "are not there, or not whole" in told(final.evaluation(read_run(root, {})))


def test_all_that_is_needed_to_do_it_again_is_there(run):
    table, versions, commands, settings = data.repetition(run).blocks
    assert dict(table.rows)["data fingerprint"] == "f" * 64
    assert dict(versions.pairs) == {"python": "3.11.7"}
    assert "thawline search study.yaml --name lungs --final" in commands.text
    assert "learning_rate" in settings.text
    assert "record" not in settings.text


@pytest.mark.parametrize("make", SECTIONS)
def test_every_section_of_a_study_without_a_trial_says_what_it_lacks(tmp_path, make):
    section = make(study(tmp_path))
    assert all(section.findings)
    assert not [block for block in section.blocks if block.kind in ("plot", "live")]


@pytest.mark.parametrize("make", SECTIONS)
@pytest.mark.parametrize(
    "events",
    [
        [Asked(0, {"learning_rate": 1e-3, "freeze_depth": 1}, 0), Started(0)],
        [Asked(0, {"freeze_depth": 1}, 0), Started(0), EpochReported(0, 1, {"val_auc": float("nan")}, "continue")],
        [Asked(0, {}, 0), Started(0), EpochReported(0, 1, {"val_auc": 0.5}, "complete")],
        completed(0, 0.5),
        [*completed(0, 0.5), *completed(1, 0.5)],
        [*completed(0, 0.5), Noted("test_opened", {"at": "", "times": 1})],
    ],
    ids=["started", "nan", "no hyperparameters", "one trial", "equal trials", "evaluation gone"],
)
def test_every_section_stands_any_beginning(tmp_path, make, events):
    section = make(study(tmp_path, *events))
    assert all(section.findings)
    for block in section.blocks:
        if block.kind == "plot":
            assert block.data


def test_a_study_that_minimizes_is_read_the_other_way_round(tmp_path):
    loss = {"metric": "val_loss", "direction": "minimize"}
    runs = [event for n, value in enumerate((0.5, 0.2, 0.4)) for event in completed(n, value, metric="val_loss")]
    found = study(tmp_path, *runs, objective=loss)
    assert "as the best of 3 trials" in told(answer.answer(found))
    assert found.winner["number"] == 1
    assert told(course.convergence(found)).startswith("The best value, 0.200, came from trial 1")
    assert "from 0.500 to 0.200" in told(space.parallel(found))
    assert all(make(found).findings for make in SECTIONS)


def test_the_same_ledger_gives_the_same_file_where_asked_for(drawn, tmp_path):
    assert write_report(drawn) == drawn / "report.html"
    written = write_report(drawn, tmp_path / "made" / "r.html")
    assert written.read_bytes() == (drawn / "report.html").read_bytes()
    assert list(written.parent.iterdir()) == [written]


def test_no_picture_of_the_test_part_gets_in(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "lungs")
    for ending in ("npy", "csv", "json"):
        (root / "arrays" / f"train.{ending}").rename(root / "arrays" / f"test.{ending}")
    assert "Training image" not in write_report(root).read_text(encoding="utf-8")


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_runs_side_by_side_have_a_column_each(run, tmp_path):
    other = read_run(draw_run(tmp_path / "lungs", Drawing(trials=12, seed=1, evaluated=False)), {})
    found = contrast_runs([run, other])
    names = [outcome.name for outcome in found.outcomes]
    assert names == [f"{each.paths.root.parent.name}/lungs" for each in (run, other)]
    rows = {row[0]: row[1:] for row in rows_side_by_side(found)}
    assert rows["test AUC"] == ["0.800 [0.700, 0.900]", "–"]
    assert rows["trials"][1].startswith("12: ")
    assert found.differing["budget.trials"] == [24, 12]
    page = comparison_page([run, other])
    assert " has the best mean val_auc on fresh seeds" in page.sections[0].findings[0]
    assert [section.anchor for section in page.sections] == [
        "answer", "differences", "convergence", "depth", "values", "test",
    ]  # fmt: skip


def test_runs_on_other_images_are_not_ranked(run, tmp_path):
    record = {"data": {"fingerprint": "0" * 64}}
    other = read_run(draw_run(tmp_path / "other", Drawing(settings={"record": record})), {})
    answered = comparison_page([run, other]).sections[0]
    assert answered.findings[0] == "These runs cannot be compared by their scores."
    assert "did not see the same images" in answered.blocks[0].sentences[0]


def test_runs_that_have_not_begun_are_compared_too(run, tmp_path):
    page = comparison_page([study(tmp_path), run])
    assert "Fewer than two of the runs were tried on fresh seeds" in page.sections[0].findings[0]
    path = write_comparison([study(tmp_path / "again"), run], tmp_path / "made" / "comparison.html")
    assert re.search(r"<title>study and lungs", path.read_text(encoding="utf-8"))


def test_test_scores_of_an_earlier_winner_are_marked_and_left_out_of_the_picture(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "extended")
    metrics = root / "final" / "metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "trial": {"number": 999}}))
    runs = [read_run(path, {}) for path in (drawn, root)]
    rows = {row[0]: row[1:] for row in rows_side_by_side(contrast_runs(runs))}
    assert rows["test AUC"] == ["0.800 [0.700, 0.900]", "0.800 [0.700, 0.900], an earlier model's"]
    section = comparison_page(runs).sections[-1]
    assert section.findings[-1] == "Not in the picture, because an earlier model was evaluated: extended."
    assert list(section.blocks[0].figure.data[0].customdata) == ["lungs"]


def test_the_winners_value_is_not_called_the_best_of_the_search(tmp_path):
    reruns = [*completed(0, 0.7, repeat=1), *completed(1, 0.9, repeat=1)]
    found = study(tmp_path, *completed(0, 0.95), *completed(1, 0.93), *reruns)
    rows = {row[0]: row[1:] for row in rows_side_by_side(contrast_runs([found]))}
    assert (rows["winner"], rows["winner's value in the search"]) == (["trial 1"], ["0.930"])


def test_runs_of_one_name_are_told_apart_by_as_many_folders_as_it_takes(tmp_path):
    places = [tmp_path / place for place in ("a/runs/first", "b/runs/first", "b/runs/second")]
    found = contrast_runs([read_run(draw_run(place, BEGUN), {}) for place in places])
    assert [each.name for each in found.outcomes] == ["a/runs/first", "b/runs/first", "second"]
