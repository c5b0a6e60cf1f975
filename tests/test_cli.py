"""The commands as a user types them: what they print, write and answer."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from search import StudyConfig, cli, console
from search.commands.arguments import load_study
from search.events import Asked, EpochReported, Failed, Noted, SessionOpened, Started
from search.ledger import Ledger, read_history
from search.lock import driver_at_work, exclusive
from search.paths import ORIGIN, StudyPaths
from search.safe_yaml import to_yaml
from trainable import ImageTrainable
from trainable.synthetic import draw_study

THAWLINE = Path(sys.executable).with_name("thawline")
SPACE = {
    "learning_rate": {"type": "float", "low": 0.0003, "high": 0.003, "log": True},
    "freeze_depth": {"type": "int", "low": 0, "high": 5},
}
POINTS = [
    {"learning_rate": 0.001, "freeze_depth": 5},
    {"learning_rate": 0.002, "freeze_depth": 0},
    {"learning_rate": 0.003, "freeze_depth": 3},
    {"learning_rate": 0.0005, "freeze_depth": 4},
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def thawline(here, monkeypatch, capsys):
    """Runs a command in this process; its exit code, standard output and standard error."""
    monkeypatch.setattr(console.out, "width", 200)  # what Rich makes of a pipe depends on the environment

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["thawline", *map(str, arguments)])
        code = cli._exit_code()
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def run_folder(here):
    """The run `lungs`: trials 0 and 1 are completed, 2 is pruned, 3 failed; four more may be asked."""
    paths = StudyPaths(here / "runs" / "lungs")
    paths.root.mkdir(parents=True)
    document = {"name": "lungs", "data": {"path": "images"}, "space": SPACE, "budget": {"trials": 8, "epochs": 2}}
    config = StudyConfig.of(ImageTrainable.sections).parse(document)
    record = {"versions": {"thawline": "0.1.0"}, "data": {"fingerprint": "f", "classes": ["ill", "well"]}}
    paths.study_file.write_text(to_yaml({**config.dump(), "record": record}), encoding="utf-8")
    with Ledger(paths.ledger) as ledger:
        ledger.append(SessionOpened("host", 1))
        for number, (point, values) in enumerate(zip(POINTS, [(0.6, 0.7), (0.8, 0.75), (0.5,), ()], strict=True)):
            ledger.append(Asked(number, point, seed=number), Started(number, worker="host/2"))
            for epoch, value in enumerate(values, start=1):
                verdict = "complete" if epoch == 2 else "prune" if number == 2 else "continue"
                seconds = {"train": 1.5, "validation": 0.5}
                ledger.append(EpochReported(number, epoch, {"val_auc": value}, verdict, seconds=seconds))
        ledger.append(Failed(3, "out of memory"))
    return paths


# Help, version, completion


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["search", "--help"], ["data", "check", "--help"]])
def test_help_and_version_import_nothing_heavy(here, arguments):
    code = (
        "import sys; from search import cli; "
        f"sys.argv = ['thawline', *{arguments!r}]; code = cli._exit_code(); "
        "heavy = {'ray', 'tensorflow', 'keras', 'optuna', 'pandas', 'sklearn', 'scipy', 'PIL', 'matplotlib'}; "
        "print('\\nloaded:', sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.splitlines()[-1] == "loaded: []"


def test_the_version_is_that_of_the_package(thawline):
    from importlib.metadata import version

    assert thawline("--version") == (0, f"thawline {version('thawline')}\n", "")


def test_every_command_has_a_help_that_names_its_purpose(thawline):
    code, said, _ = thawline("--help")
    assert code == 0
    for command in (
        "init",
        "data",
        "search",
        "status",
        "logs",
        "dashboard",
        "trials",
        "export",
        "retrain",
        "evaluate",
        "predict",
        "quickstart",
    ):
        assert f" {command} " in said
        assert thawline(command, "--help")[0] == 0


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("thawline ev", ["evaluate"]),
        ("thawline status ", ["lungs"]),
        ("thawline trials lungs --format p", ["parquet"]),
        ("thawline search ", ["lungs", "study.yaml"]),
        ("thawline search lu", ["lungs"]),
    ],
)
def test_the_shell_completes_commands_choices_runs_and_study_files(run_folder, here, typed, offered):
    (here / "study.yaml").touch()
    asked = {"_THAWLINE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    said = subprocess.run([THAWLINE], env={**os.environ, **asked}, capture_output=True, text=True, check=True).stdout
    assert sorted(said.split()) == offered


def test_an_unknown_option_is_a_usage_error(thawline):
    code, said, complained = thawline("search", "x.yaml", "--trails", "3")
    assert (code, said) == (2, "")
    assert "No such option" in complained
    assert "--trials" in complained


# Before a search


def test_data_check_describes_images_and_says_that_a_search_may_start(here, thawline):
    draw_study(here, images_per_class=12, image_size=32, seed=1)
    code, said, complained = thawline("data", "check", "images", "--set", "groups=groups.csv")
    assert code == 0
    assert "lesion" in said
    assert "12 PNG" in said
    assert "planned part" in said
    assert said.endswith("a search may start\n")
    assert complained == "checking images: 24 done\n"


def test_data_check_lists_what_cannot_be_read_and_refuses(here, thawline):
    draw_study(here, images_per_class=4, image_size=32, seed=1)
    (here / "images" / "lesion" / "broken [1].png").write_bytes(b"no image")
    code, said, complained = thawline("data", "check", "images")
    assert code == 2
    assert "lesion/broken [1].png: the content is no image" in said
    assert "a search may start" not in said
    assert "error: at most 5.0% of the files may be unreadable" in complained


# Reading a run


def test_status_shows_the_budget_the_best_the_failure_and_the_disk(run_folder, thawline):
    run_folder.trials.mkdir()
    (run_folder.trials / "log.txt").write_bytes(b"x" * 2_000_000)
    (run_folder.checkpoints(1) / "000001").mkdir(parents=True)
    (run_folder.checkpoints(1) / "000001" / "arrays.npz").write_bytes(b"x" * 1_500_000)
    code, said, complained = thawline("status", "lungs")
    assert (code, complained) == (0, "")
    assert "4 of 8 trials" in said
    assert "2 completed, 1 pruned, 1 failed" in said
    assert "trial 3 failed: out of memory" in said
    assert "trials 3.5 MB" in said
    assert "checkpoints 1.5 MB, of 1 trial\n" in said
    assert said.endswith("no driver is at work; `thawline search runs/lungs` goes on\n")
    [best] = [line.split() for line in said.splitlines() if "best 1" in line]
    assert best[2:4] == ["1/2", "0.8000"]


def test_status_of_a_copy_that_was_fetched_says_so(run_folder, thawline):
    (run_folder.root / ORIGIN).write_text("{}")
    assert "no driver is at work; this is a copy of a run on a cluster" in thawline("status", "lungs")[1]


def test_status_says_how_a_study_whose_time_is_used_up_is_extended(run_folder, thawline):
    document = yaml.safe_load(run_folder.study_file.read_text(encoding="utf-8"))
    document["budget"]["wall_seconds"] = 1e-9
    run_folder.study_file.write_text(to_yaml(document), encoding="utf-8")
    said = thawline("status", "lungs")[1]
    assert "are used up; `thawline search runs/lungs --time-budget TIME` extends it" in said


@pytest.mark.parametrize("name", ["2026-11-25", "007", "1e5", "no", "null"])
def test_a_run_may_have_a_name_that_yaml_takes_for_something_else(run_folder, here, name):
    run_folder.root.rename(here / "runs" / name)
    config = load_study(name, [])
    assert (config.name, config.storage) == (name, here / "runs")


def test_a_folder_with_the_name_of_a_run_and_a_study_file_is_not_taken_for_it(run_folder, here, thawline):
    (here / "lungs").mkdir()
    (here / "lungs" / "study.yaml").write_text("data: {path: images}", encoding="utf-8")
    assert "4 of 8 trials" in thawline("status", "lungs")[1]


def test_status_names_a_driver_at_work_and_counts_what_an_earlier_one_left(run_folder, thawline):
    with Ledger(run_folder.ledger) as ledger:
        ledger.append(Asked(4, POINTS[0], seed=4), Started(4))
    assert "1 waiting" in thawline("status", "lungs")[1]
    with exclusive(run_folder.lock):
        code, said, _ = thawline("status", run_folder.root)
    assert code == 0
    assert "1 running" in said
    assert f"at work: process {os.getpid()} on " in said


def test_status_tells_when_the_test_set_was_opened(run_folder, thawline):
    with Ledger(run_folder.ledger) as ledger:
        ledger.append(Noted("test_opened", {"at": "2026-01-01T00:00:00+00:00", "times": 2}))
    assert "test set last opened 2026-01-01T00:00:00+00:00, 2 in all\n" in thawline("status", "lungs")[1]


@pytest.fixture
def short_driver(run_folder, monkeypatch):
    """Is at work on the run until somebody has looked for it three times, and reports an epoch meanwhile."""
    looks, at_work = [], threading.Event()

    def look(lock):
        looks.append(lock)
        return driver_at_work(lock)

    def work():
        with exclusive(run_folder.lock), Ledger(run_folder.ledger) as ledger:
            at_work.set()
            wait_for_looks(1)
            ledger.append(Asked(4, POINTS[0], seed=4), Started(4), EpochReported(4, 1, {"val_auc": 0.5}, "continue"))
            wait_for_looks(3)

    def wait_for_looks(count):
        deadline = time.monotonic() + 60
        while len(looks) < count and time.monotonic() < deadline:
            time.sleep(0.02)

    monkeypatch.setattr("search.view.watching.driver_at_work", look)
    monkeypatch.setattr("search.view.watching.PAUSE", 0.2)
    driver = threading.Thread(target=work)
    driver.start()
    at_work.wait(60)
    yield
    driver.join(60)


@pytest.mark.usefixtures("short_driver")
def test_status_watches_until_the_driver_ends_a_line_per_event_outside_a_terminal(thawline):
    code, said, complained = thawline("status", "lungs", "--watch")
    assert (code, complained) == (0, "")
    assert said.splitlines()[:2] == [
        "trial 4 asked: learning_rate 0.001, freeze_depth 5",
        "trial 4 epoch 1: val_auc 0.5000",
    ]
    assert said.endswith("no driver is at work; `thawline search runs/lungs` goes on\n")


@pytest.mark.usefixtures("short_driver")
def test_status_tells_programs_what_happens_and_nothing_else(thawline):
    code, said, complained = thawline("status", "lungs", "--json-events")
    assert (code, complained) == (0, "")
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["kind"] for event in events] == ["study", "asked", "started", "epoch_reported", "ended"]
    assert events[-1]["best"]["number"] == 1


def test_logs_shows_what_a_trial_wrote_and_names_those_that_have_logs(run_folder, thawline):
    log = run_folder.trials / "1" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("epoch 1: [bold] 0.5\n", encoding="utf-8")
    assert thawline("logs", "lungs", "1") == (0, "epoch 1: [bold] 0.5\n", "")
    assert thawline("logs", "lungs", "1", "--follow") == (0, "epoch 1: [bold] 0.5\n", "")
    code, said, complained = thawline("logs", "lungs", "2")
    assert (code, said) == (2, "")
    assert "with logs: 1" in complained


def test_the_trial_table_on_a_screen_has_its_main_columns(run_folder, thawline):
    code, said, _ = thawline("trials", "lungs")
    assert code == 0
    head, *rows = [line.split() for line in said.splitlines()]
    assert head == [
        *("number", "status", "value", "best_epoch", "epochs_run", "learning_rate", "freeze_depth", "train_seconds")
    ]
    assert rows[1] == ["1", "completed", "0.8", "1", "2", "0.002", "0", "3"]
    assert len(rows) == 4


def test_the_trial_table_as_json_has_the_names_that_scripts_rely_on(run_folder, thawline):
    code, said, complained = thawline("trials", "lungs", "--format", "json")
    assert (code, complained) == (0, "")
    rows = json.loads(said)
    names = {"number", "status", "value", "best_epoch", "epochs_run", "train_seconds", "learning_rate", "freeze_depth"}
    assert [row["number"] for row in rows] == [0, 1, 2, 3]
    assert all(names <= set(row) for row in rows)
    assert rows[3] | {"status": "failed", "value": None, "reason": "out of memory"} == rows[3]


def test_the_trial_table_as_csv_can_be_filtered_sorted_and_cut(run_folder, thawline):
    arguments = ["--format", "csv", "--filter", "status!=failed", "--sort", "value", "--columns", "number,value"]
    assert thawline("trials", "lungs", *arguments)[1].split() == ["number,value", "1,0.8", "0,0.7", "2,0.5"]
    assert thawline("trials", "lungs", *arguments, "--ascending")[1].split()[1] == "2,0.5"
    assert thawline("trials", "lungs", *arguments, "--top", "1")[1].split() == ["number,value", "1,0.8"]


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_the_trial_table_is_written_as_its_ending_says(run_folder, here, thawline, ending):
    code, said, _ = thawline("trials", "lungs", "--output", f"tables/trials.{ending}")
    assert (code, said) == (0, f"wrote 4 trials to tables/trials.{ending}\n")
    assert (here / "tables" / f"trials.{ending}").stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--format", "yaml"], "'yaml' is not one of"),
        (["--sort", "vaule"], "error: vaule: must be a column of the table; did you mean `value`?"),
        (["--filter", "value>x"], "`value` holds numbers, but got 'x'"),
        (["--columns", "number,nothing"], "error: nothing: must be a column of the table"),
        (["--output", "trials.xlsx"], "error: trials.xlsx: must end in .csv or .parquet or .json"),
        (["--top", "0"], "--top"),
    ],
)
def test_a_table_that_cannot_be_had_is_refused(run_folder, thawline, arguments, expected):
    code, said, complained = thawline("trials", "lungs", *arguments)
    assert (code, said) == (2, "")
    assert expected in complained


def test_a_reader_that_has_seen_enough_ends_the_table_quietly(run_folder):
    command = f"{THAWLINE} trials lungs --format json | head -n 1"
    finished = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (finished.stdout, finished.stderr) == ("[\n", "")


# Export, and what needs a trained model


def test_export_writes_the_best_or_a_given_trial(run_folder, thawline):
    code, said, _ = thawline("export", "lungs")
    assert (code, said) == (0, "wrote runs/lungs/best.yaml\n")
    best = yaml.safe_load(run_folder.best.read_text(encoding="utf-8"))
    assert best["record"]["trial"]["number"] == 1
    assert best["training"] | POINTS[1] == best["training"]
    assert thawline("export", "lungs", "--trial", "0")[1] == "wrote runs/lungs/trial_0.yaml\n"
    assert thawline("export", "lungs", "--trial", "3")[::2] == (
        2,
        "error: trial 3: must have a value of val_auc to be exported, but it is failed: out of memory\n",
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "lungs", "--format", "onnx"], "error: lungs: must have a trained model, but has none;"),
        (
            ["export", "lungs", "--format", "onnx", "--trial", "1"],
            "--trial: goes with --format yaml, but got onnx",
        ),
        (["predict", "lungs", ".", "--class", "ill"], "so --explain DIR must be given too"),
        (["predict", "lungs", ".", "--output", "a.csv", "--format", "json"], "must end in .json for --format json"),
    ],
)
def test_what_cannot_be_exported_or_explained_is_refused(run_folder, thawline, arguments, expected):
    code, said, complained = thawline(*arguments)
    assert (code, said) == (2, "")
    assert expected in complained


def test_predicting_before_a_model_is_trained_says_what_to_do(run_folder, thawline):
    code, said, complained = thawline("predict", "lungs", ".")
    assert (code, said) == (2, "")
    assert complained == "error: lungs: must have a trained model, but has none; `thawline retrain lungs` trains it\n"


def test_evaluating_before_a_winner_is_named_says_what_to_do(run_folder, thawline):
    code, _, complained = thawline("evaluate", "lungs")
    assert code == 2
    assert complained == (
        "error: runs/lungs/best.yaml: must be there, but no winner is named yet; `thawline retrain runs/lungs` does\n"
    )


def test_evaluating_without_the_ledger_begins_no_other_that_forgot_how_often_the_test_set_was_opened(
    run_folder, thawline
):
    thawline("export", "lungs")
    for path in (run_folder.ledger, run_folder.journal):
        path.unlink()
    code, _, complained = thawline("evaluate", "lungs")
    assert code != 0
    assert "its ledger must be here too, but it is gone; put back a copy" in complained
    assert not run_folder.ledger.exists()


def test_evaluating_before_a_model_is_trained_opens_no_test_set(run_folder, thawline):
    thawline("export", "lungs")
    code, _, complained = thawline("evaluate", "lungs")
    assert code == 2
    assert complained.startswith("error: runs/lungs/final: must hold a trained model, but has none;")
    assert read_history(run_folder.ledger).note("test_opened") is None


def test_evaluating_a_model_of_another_configuration_shows_the_difference(run_folder, thawline):
    thawline("export", "lungs")
    final = run_folder.final
    final.mkdir()
    (final / "model.keras").touch()
    config = StudyConfig.load(run_folder.best, (), ImageTrainable.sections)
    described = {
        "architecture": "resnet50",
        "image_size": 64,
        "colour": "grey",
        "epochs": 2,
        "seed": 1,
        "hyperparameters": {**config.training.model_dump(mode="json"), "freeze_depth": 5},
    }
    (final / "model.json").write_text(json.dumps(described), encoding="utf-8")
    told = thawline("export", "lungs")[1].splitlines()
    assert told[1:] == ["runs/lungs/final has another model; `thawline retrain runs/lungs` trains this one"]
    code, _, complained = thawline("evaluate", "lungs")
    lines = complained.splitlines()
    assert code == 2
    assert "must hold the model that runs/lungs/best.yaml describes" in lines[0]
    assert "error: epochs: 2 -> 1" in lines
    assert "error: hyperparameters.freeze_depth: 5 -> 0" in lines
    assert read_history(run_folder.ledger).note("test_opened") is None


def test_a_damaged_ledger_is_named_without_a_traceback(run_folder, thawline):
    run_folder.ledger.write_bytes(b"no ledger" * 1000)
    assert thawline("status", "lungs")[0] == 0  # its other record has all of it
    run_folder.journal.unlink()
    code, _, complained = thawline("status", "lungs")
    assert code == 1
    assert complained.startswith(f"stopped: {run_folder.ledger}: must be a readable SQLite file")


# All of it


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_study_goes_from_images_to_test_figures(here):
    draw_study(here, images_per_class=24, image_size=32, seed=1)
    study = {
        "data": {"path": "images", "groups": "groups.csv", "image_size": 32, "positive_class": "lesion"},
        "model": {"architecture": "vgg16", "weights": "random"},
        "training": {"batch_size": 8},
        "space": SPACE,
        "budget": {"trials": 2, "epochs": 1},
        "final": {"finalists": 1, "repeats": 1},
    }
    (here / "lungs.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")

    def thawline(*arguments):
        finished = subprocess.run([THAWLINE, *arguments], capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        return finished

    searched = thawline("search", "lungs.yaml", "--final")
    assert "oneDNN" not in searched.stderr
    assert "trial 1 epoch 1: val_auc" in searched.stderr
    assert "locked test set" in searched.stdout
    paths = StudyPaths(here / "runs" / "lungs")
    files = ["model.keras", "metrics.json", "predictions.csv", "model_card.md", "figures/roc.png"]
    assert [name for name in files if not (paths.final / name).is_file()] == []
    assert paths.report.is_file()
    metrics = json.loads((paths.final / "metrics.json").read_text(encoding="utf-8"))
    for name in (
        "accuracy",
        "balanced_accuracy",
        "auc",
        "f1",
        "sensitivity",
        "specificity",
        "expected_calibration_error",
    ):
        assert set(metrics[name]) >= {"value", "interval"}
    assert read_history(paths.ledger).note("test_opened")["times"] == 1

    rows = json.loads(thawline("trials", "lungs", "--format", "json").stdout)
    names = {"number", "status", "value", "best_epoch", "epochs_run", "train_seconds", "learning_rate", "freeze_depth"}
    assert [row["number"] for row in rows] == [0, 1]
    assert all(names <= set(row) for row in rows)

    (paths.final / "model_card.md").unlink()  # as if it had been ended while it drew
    shutil.rmtree(paths.final / "figures")
    again = thawline("search", "lungs.yaml", "--final")  # only that is left to do, and the test set stays shut
    assert "training on train" not in again.stderr
    assert [name for name in files if not (paths.final / name).is_file()] == []
    assert read_history(paths.ledger).note("test_opened")["times"] == 1

    thawline("export", "lungs")
    thawline("retrain", paths.best)
    thawline("evaluate", "lungs")
    assert read_history(paths.ledger).note("test_opened")["times"] == 2
    predicted = list(csv.DictReader(thawline("predict", "lungs", "images/lesion").stdout.splitlines()))
    assert len(predicted) == 24
    assert {row["predicted"] for row in predicted} <= {"clear", "lesion"}
    assert all(float(row["probability_clear"]) >= 0 for row in predicted)


def reading(count, code):
    """Exit code and complaints of a program that runs `code` as the command line does, its output read for a while."""
    program = f"import search.cli\n{code}\nsearch.cli.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(count):
        process.stdout.readline()
    process.stdout.close()
    return process.wait(timeout=60), process.stderr.read()


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    assert reading(2, "search.cli.app = lambda **_: [print('x' * 1000) for _ in range(10_000)] and 0") == (141, "")


def test_a_pipe_that_breaks_elsewhere_is_told():
    broken = "import errno\ndef app(**_):\n    raise BrokenPipeError(errno.EPIPE, 'Broken pipe')\nsearch.cli.app = app"
    process = subprocess.run(
        [sys.executable, "-c", f"import search.cli\n{broken}\nsearch.cli.main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "BrokenPipeError" in process.stderr
