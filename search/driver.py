"""Runs a study from its configuration to a full ledger: start, resume, extend, rerun the finalists."""

import logging
import os
import platform
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import BaseModel

from search.bridges.copies import copied_to_bridges, logging_problems
from search.config import Direction, StudyConfig, differences
from search.disk import locks_work
from search.errors import ConfigurationError, StudyStopped
from search.events import Event, Noted, SessionOpened
from search.history import History
from search.interruption import Interrupted, interruptible
from search.ledger import Ledger
from search.opening import (
    check_same_data,
    check_same_study,
    check_trials_known,
    earlier_study,
    entries_elsewhere,
    only_driver,
)
from search.paths import StudyPaths, check_name
from search.pruning import pauses
from search.retention import Retention
from search.safe_yaml import to_yaml
from search.sampling import build_sampler
from search.storage_copy import copied, copy_of
from search.study import Finalists, Study, Then
from search.trial_source import TrialSource
from search.view.progress import View
from search.whole_file import write_whole

log = logging.getLogger("thawline.driver")
PACKAGES = ("thawline", "ray", "optuna", "keras", "tensorflow", "numpy", "scikit-learn", "pandas")


class Prepared(Protocol):
    """What a trainable makes of a configuration: what to write down, and plain values that every trial needs."""

    @property
    def record(self) -> dict[str, Any]:
        """Fingerprints and counts of the data, sha256 of the weights."""

    @property
    def context(self) -> dict[str, Any]:
        """Passed to every trial: plain values. Paths in it reach every node: what is there when the search starts is
        brought to where the run folder is not seen, what lies under the folders `trials` and `scratch` is the trials'
        own.
        """

    @property
    def remarks(self) -> Sequence[str]:
        """What whoever starts the study should know, in sentences."""


class Trainable(Protocol):
    """What a search needs of the thing it tunes.

    Attributes:
        sections: Parts of a study file that are the trainable's (`data`, `model`, `training`).
        metrics: Names that every epoch reports, each with the direction in which it is better.
    """

    sections: Mapping[str, type[BaseModel]]
    metrics: Mapping[str, Direction]

    @property
    def trial_class(self) -> type:
        """A Ray class trainable whose steps give the messages of `tune_bridge`."""

    def settled(self, config: Any, earlier: StudyConfig | None) -> Any:
        """The configuration, with everything decided that it leaves to the machine; as `earlier` has it, the one that
        the study was begun with, if it was.
        """

    def prepare(self, config: Any, largest: Mapping[str, Any], folder: Path, progress: Any) -> Prepared:
        """Check all that the trainable knows of and make ready what trials need. Raises an error with `problems`."""


class Session:
    """One driver at work on one study; holds its lock and its ledger. Use as a context manager."""

    def __init__(
        self, config: StudyConfig, trainable: Trainable, view: View | None = None, *, accept_loss: bool = False
    ):
        """Check everything that can be checked before any work.

        Args:
            config: The study.
            trainable: What it tunes.
            view: Sees what happens.
            accept_loss: Go on although the ledger has lost events.

        Raises:
            ConfigurationError: with every problem.
        """
        self.config = config.typed(trainable.sections)
        self._trainable = trainable
        self.view = view or View()
        self._accept_loss = accept_loss
        self.paths = StudyPaths((self.config.storage / check_name(self.config.name or "study")).absolute())
        self._stack = ExitStack()
        problems = _problems(self.config, trainable)
        if problems:
            raise ConfigurationError(problems)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            check_alone = stack.enter_context(only_driver(self.paths))
            if not locks_work(self.paths.root):
                self.view.say(f"{self.paths.root}: file locks do not work there; heartbeats keep other drivers away")
            place = copy_of(self.paths, self.config.storage_copy)
            elsewhere = entries_elsewhere(self.paths, place, self.view.say)
            earlier = earlier_study(self.paths, elsewhere)
            self._settle(earlier)
            if earlier:
                check_same_study(self.paths, earlier.typed(self._trainable.sections), self.config)
                self._compare_versions(earlier.record or {})
            else:
                self.paths.split.unlink(missing_ok=True)  # of a start that was cut off, with other settings perhaps
            stack.enter_context(self.view)
            self._prepared = self._trainable.prepare(
                self.config, largest_values(self.config), self.paths.root, self.view.preparing
            )
            check_same_data(earlier.record if earlier else None, self._prepared.record)
            for remark in self._prepared.remarks:
                self.view.say(remark)
            check_alone()  # by now whoever started at the same instant on another machine has signed as well
            self.ledger = stack.enter_context(Ledger(self.paths.ledger, elsewhere, accept_loss=self._accept_loss))
            if self.ledger.recovered:
                self.view.say(self.ledger.recovered)
            check_trials_known(self.paths, self.ledger.history, self._accept_loss)
            self._write_study_file()  # after the ledger: where it is, a ledger must be
            self._retention = Retention(self.paths, self.config, self.ledger.history)
            self.ledger.listeners += [self._show, self._retention.happened]
            if place:
                stack.enter_context(copied(self.ledger, self.paths, place, self.view.say))
            self.view.watch(self.config, self.ledger.history)
            self.ledger.append(SessionOpened(socket.gethostname(), os.getpid()))
            stack.enter_context(copied_to_bridges(self.config, self.paths, self.view.say))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    @property
    def history(self) -> History:
        return self.ledger.history

    def search(self, then_rerun: Callable[[History], Sequence[int]] | None = None) -> None:
        """Run the trials that the budget allows and the ledger lacks.

        Args:
            then_rerun: Chooses the finalists from the finished search; they are run again on fresh seeds, on the same
                warm workers.

        Raises:
            StudyStopped: when trials failed one after another, or none ended otherwise with a value.
        """
        study = Study(self.config, self.ledger)
        if not study.missing:
            self.view.say("the search is complete; more --trials, or a larger --time-budget, extend it")
        if then_rerun is None:
            self._run(study)
        elif study.missing:
            self._run(Then(study, lambda: Finalists(self.config, self.ledger, list(then_rerun(self.history)))))
        else:
            self.rerun(then_rerun(self.history))
        metric = self.config.objective.metric
        if not any(trial.usable and trial.values(metric) for trial in self.history.search_trials()):
            see = f"see `thawline trials {self.paths.root.name}`"
            raise StudyStopped(f"no trial completed or was pruned with a value of {metric}; {see}")

    def rerun(self, numbers: Sequence[int]) -> None:
        """Run these trials' configurations once more on fresh seeds, as often as configured.

        Raises:
            StudyStopped: when reruns failed one after another.
        """
        self._run(Finalists(self.config, self.ledger, list(numbers)))

    def note(self, topic: str, facts: dict[str, Any]) -> None:
        """Write something about the whole study into its ledger."""
        self.ledger.append(Noted(topic, facts))

    def _run(self, source: TrialSource | Then) -> None:
        if not source.missing:
            return
        from search.cluster import connect
        from search.desk import Home, open_desk
        from search.inside_ray import ready_workers
        from search.outpost import on_any_host
        from search.placement import TrialResources, check_fits, idle_gpu, late_nodes, plan_concurrency

        asked = self.config.resources
        per_trial = TrialResources(asked.cpus_per_trial, asked.gpus_per_trial)
        if idle := idle_gpu(per_trial):
            self.view.say(idle)
        self.view.preparing("starting Ray", 0, 1)
        with connect(asked.address) as cluster:
            from search.tune_bridge import run_trials  # takes seconds, in which Ray's workers start

            self.view.preparing("starting Ray", 1, 1)
            problem = check_fits(cluster.nodes, per_trial)
            if problem:
                raise ConfigurationError(f"resources: {problem}")
            concurrency = plan_concurrency(cluster.nodes, per_trial, asked.concurrency)
            if cluster.missing and not asked.concurrency:
                self.view.say(late_nodes(cluster.missing, concurrency))
            self._note_cluster(cluster.nodes, concurrency)
            context = {
                **self._prepared.context,
                "objective": [self.config.objective.metric, self.config.objective.direction],
                "cpus": asked.cpus_per_trial,
                "gpus": asked.gpus_per_trial,
                "keeps_best": self.config.final.kept_checkpoints > 0,
                "checkpoint_every": self.config.budget.checkpoint_every,
                "checkpoint_seconds": self.config.budget.checkpoint_seconds,
                "pauses": pauses(self.config.pruner, self.config.budget.epochs),
            }
            resources = {"CPU": per_trial.cpus, "GPU": per_trial.gpus}
            trial_class = self._trainable.trial_class
            try:
                with ExitStack() as stack, interruptible():
                    if asked.address:  # hosts may be among its nodes that do not see the run folder
                        context["home"] = stack.enter_context(open_desk(Home.of(self.paths, context)))
                        trial_class = on_any_host(trial_class)
                    else:
                        stack.enter_context(ready_workers())
                    run_trials(source, trial_class, context, resources, concurrency)
            except Interrupted:
                self.view.preparing("stopping", 0, 1)
                raise
        if source.stopped:
            raise StudyStopped(source.stopped)
        self._retention.tidy()
        shutil.rmtree(self.paths.scratch, ignore_errors=True)

    def _note_cluster(self, nodes: Sequence[Mapping[str, float]], concurrency: int) -> None:
        """What there is to work with, for whoever looks; once, as long as it stays so."""
        facts = {
            "nodes": len(nodes),
            "cpus": sum(node.get("CPU", 0.0) for node in nodes),
            "gpus": sum(node.get("GPU", 0.0) for node in nodes),
            "trials_at_once": concurrency,
            "cpus_per_trial": self.config.resources.cpus_per_trial,
            "gpus_per_trial": self.config.resources.gpus_per_trial,
        }
        if facts != self.history.note("cluster"):
            self.note("cluster", facts)

    def _settle(self, earlier: StudyConfig | None) -> None:
        """Decide what the study file leaves to the machine, and say it."""
        settled = self._trainable.settled(self.config, earlier)
        for line in differences(self.config.dump(), settled.dump()):
            self.view.say(f"{line} on this machine")
        self.config = settled

    def _compare_versions(self, record: Mapping[str, Any]) -> None:
        before, now = record.get("versions", {}), _versions()
        changed = ", ".join(differences(before, {name: now[name] for name in before if name in now}))
        if changed:
            self.view.say(f"other versions than when the study was last run, so results may differ: {changed}")

    def _show(self, event: Event) -> None:
        try:
            self.view.happened(event)
        except Exception:  # what is shown must not end what is shown
            log.exception("the view could not show %s", type(event).__name__)

    def _write_study_file(self) -> None:
        record = {"versions": _versions(), **self._prepared.record}
        document = {**self.config.dump(), "record": record}
        write_whole(self.paths.study_file, to_yaml(document))


def run_study(config: StudyConfig, trainable: Trainable, view: View | None = None) -> StudyPaths:
    """Search: start the study, or go on where it was left.

    Returns:
        Where everything is; `analysis.read_trials(paths.root)` reads the table.

    Raises:
        ConfigurationError: before any work, with every problem.
        StudyStopped: when the search could not give what was asked.
    """
    with Session(config, trainable, view) as session:
        session.search()
    return session.paths


def largest_values(config: StudyConfig) -> dict[str, Any]:
    """The largest number that each hyperparameter of the space may take."""
    return {
        name: max(parameter.ends)
        for name, parameter in config.space.items()
        if all(isinstance(end, int | float) for end in parameter.ends)
    }


def _problems(config: StudyConfig, trainable: Trainable) -> list[str]:
    problems = logging_problems(config.logging)
    metric, direction = config.objective.metric, config.objective.direction
    if metric not in trainable.metrics:
        problems.append(f"objective.metric: must be one of {', '.join(trainable.metrics)}, but got {metric!r}")
    elif direction != trainable.metrics[metric]:  # or the worst trial would be named the best
        problems.append(
            f"objective.direction: must be {trainable.metrics[metric]!r} with {metric}, but got {direction!r}"
        )
    if not config.space:
        problems.append("space: must name at least one hyperparameter to search")
    try:
        build_sampler(config.sampler, config.space, seed=0)
    except ConfigurationError as error:
        problems += error.problems
    return problems


def _versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    return {"python": platform.python_version(), **packages}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
