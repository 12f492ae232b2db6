"""`wovr fit`: train any model of the package from a YAML, resumably.

What is trained is a matter of the YAML's class paths alone. A run owns a folder:

    OUT/config.yaml             every option, resolved; `wovr fit --config OUT/config.yaml` runs it again
    OUT/checkpoints/last.ckpt   where `--resume true` goes on, and what other verbs load
    OUT/tensorboard/            curves
    OUT/metrics.json            last metrics, seconds
    OUT/DONE                    there when the run is finished
"""

from __future__ import annotations

import importlib
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import jsonargparse
import yaml  # type: ignore[import-untyped]
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from wovr.callbacks.progress import TrainingProgress
from wovr.callbacks.saving import SaveLast, StopAtBadLoss
from wovr.callbacks.seeding import SeedSteps
from wovr.commands.arguments import OptionsParser, explain_arguments
from wovr.commands.config_files import config_name, find_config, find_config_files, known_configs, read_config_file
from wovr.commands.loggers import place_loggers
from wovr.commands.null_values import whole_values
from wovr.commands.places import RUNS, Finder
from wovr.commands.run_options import of_the_result, read_options, take_processes
from wovr.errors import Terminated, UserError
from wovr.models.checkpoint import KEY, check_weights, read_checkpoint
from wovr.runs import RunFolder, atomic_write, explain_os_error, only_run, refuse_changes, write_json
from wovr.tasks.base import TrainingModule

REFUSED_PRECISIONS = ("bf16-true", "16-true", "64-true", "64", "transformer-engine", "transformer-engine-float16")
"""Values of `trainer.precision` that change the type of the weights; mixed ones compute in another type only."""

NOISE = (
    r"LightningCLI's args parameter is intended to run from within Python",  # how verbs are meant to call it
    r"The 'train_dataloader' does not have many workers",  # frames in memory: workers would only copy them
    r"The 'val_dataloader' does not have many workers",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # a frozen autoencoder
    r"Total length of `list` across ranks is zero",  # a data set without validation episodes
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    r"Checkpoint directory .* exists and is not empty",
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of torch
)
"""Warnings that tell the user nothing to act on, as regular expressions."""


class TrainingParser(OptionsParser, LightningArgumentParser):
    """Lightning's parser of our kind."""


class FitCLI(LightningCLI):
    """LightningCLI that parses and builds, and leaves running to `main`.

    Attributes:
        folder: The run's folder.
        finished: True when the folder already holds this very run, finished; then nothing was built.
        resources: What is given back when the run ends, the folder's lock first of all.
    """

    folder: Path
    finished: bool = False
    resources: ExitStack

    verb: ClassVar[str] = "fit"
    description: ClassVar[str] = "Train a model from episodes."

    def __init__(self, args: list[str]) -> None:
        with ExitStack() as resources:
            self.resources = resources
            self._parse_and_build(args)
            self.resources = resources.pop_all()  # nothing has failed: they are needed until the run ends

    def _parse_and_build(self, args: list[str]) -> None:
        super().__init__(
            model_class=TrainingModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_defaults={"enable_model_summary": False, "num_sanity_val_steps": 0},
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "description": self.description, "prog": f"wovr {self.verb}"},
            parser_class=TrainingParser,
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """See LightningCLI; null is taken wherever a file may hold it, and only there."""
        self.words = find_config_files(args)
        try:
            super().parse_arguments(parser, whole_values(parser, self.words))
        except jsonargparse.ArgumentError as error:
            raise explain_arguments(error, self.verb, parser) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options that every training has beside model, data and trainer."""
        self.add_run_arguments(parser)
        parser.add_argument(
            "--init_from", type=str | None, default=None, help="Checkpoint to take the weights from at the start."
        )
        parser.add_argument(
            "--save_every_n_steps", type=int, default=200, help="Optimiser steps between two checkpoints."
        )

    def add_run_arguments(self, parser: LightningArgumentParser) -> None:
        """The options about the run's folder, which all verbs that train have."""
        parser.add_argument(
            "--out", type=str | None, default=None, help="Folder of the run; null for runs/NAME, of conf/NAME.yaml."
        )
        parser.add_argument(
            "--resume",
            type=bool,
            default=True,
            help="Go on from OUT/checkpoints/last.ckpt when there is one; false to begin again.",
        )

    def before_instantiate_classes(self) -> None:
        """Compare the options with what the folder holds already."""
        if self.config.save_every_n_steps < 1:
            raise UserError(f"save_every_n_steps is {self.config.save_every_n_steps}", "give a number above 0")
        if not isinstance(self.config.trainer, jsonargparse.Namespace):
            raise UserError(f"trainer is {self.config.trainer!r}", "give its options, e.g. trainer: {max_steps: 4000}")
        self.find_inputs()
        take_processes(self.config.trainer)
        self.open_folder()

    def find_inputs(self) -> None:
        """Choose the folder, and find what the options name by its place; see `wovr.commands.places`.

        Raises:
            UserError: An input is nowhere, or there is no configuration that the folder could be called by.
        """
        if self.config.out is None:
            if not self.config.config:
                raise UserError("neither --out nor --config is given", "give one of them")
            self.config.out = str(RUNS / config_name(Path(str(self.config.config[-1]))))
        self.folder = Path(self.config.out)
        begun = read_options(self.folder / "config.yaml") if self.has_begun() else None
        Finder(self.words, begun=begun).fill_in(self.config)

    def has_begun(self) -> bool:
        """Whether the folder holds a run that can be gone on with, or a finished one."""
        return self.last.exists() or (self.folder / "DONE").exists()

    def open_folder(self) -> None:
        """Take the folder for this run and note the options.

        Raises:
            UserError: The folder holds a run with other options, or another command is filling it.
        """
        self.resources.enter_context(only_run(self.folder))
        place_loggers(self.config.trainer.logger, self.folder)
        self.options = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        if self.has_begun():
            before, now = read_options(self.folder / "config.yaml"), self.options
            refuse_changes(self.folder, of_the_result(before), of_the_result(now), (self.folder / "DONE").exists())

    def instantiate_classes(self) -> None:
        """Build data, model and trainer, unless the run is finished."""
        try:
            self.datamodule = self._make_data()
            self._fill_in(self.datamodule)
            self.config_init = self.parser.instantiate_classes(self.config)
        except (ValueError, TypeError) as error:
            raise explain_arguments(error, self.verb) from error
        record = self.datamodule.record() if hasattr(self.datamodule, "record") else {}
        if self.is_finished(record.get("fingerprint")):
            return
        self.model = self._get(self.config_init, "model")
        self.model.fit_windows(self.datamodule)
        try:
            self.trainer = self.instantiate_trainer()
        except (ValueError, TypeError) as error:
            raise explain_arguments(error, self.verb) from error

    def _make_data(self) -> Any:
        """The data module, which knows numbers that the model may have been given as null."""
        parser = LightningArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(LightningDataModule, "data", required=True)
        config = jsonargparse.Namespace(data=self.config.data)  # type: ignore[no-untyped-call]
        return parser.instantiate_classes(config).data

    def _fill_in(self, data: Any) -> None:
        """Put numbers of the data in place of nulls; `options` and config.yaml keep the nulls.

        Weights to begin from decide before the data: a refit has the numbers of the first fit.
        """
        begun = self.config.init_from
        described = read_checkpoint(Path(begun))[KEY]["networks"].values() if begun else ()
        whole = [network for network in described if isinstance(network, dict)]  # others are refused later
        before = {str(network.get("prefix")): network.get("init_args") for network in whole}
        module, _, name = self.config.model.class_path.rpartition(".")
        task = getattr(importlib.import_module(module), name)
        for place, compute in task.from_data(data).items():
            network, argument = place.split(".")
            given = self.config.model.init_args.get(network)
            arguments = given.get("init_args") if isinstance(given, jsonargparse.Namespace) else None
            if arguments is not None and argument in arguments and arguments[argument] is None:
                first = before.get(f"{network}.")
                known = first.get(argument) if isinstance(first, dict) else None
                arguments[argument] = compute() if known is None else known

    def is_finished(self, data: Any) -> bool:
        """Whether the folder holds this very run, finished; sets `finished` and `run_folder`.

        Args:
            data: Stands for what the options name: fingerprints, JSON values.

        Raises:
            UserError: It holds a finished run of other data.
        """
        self.run_folder = RunFolder(self.folder, {"options": of_the_result(self.options), "data": data})
        self.finished = self.run_folder.is_done()
        self.run_folder.refuse_others()
        return self.finished

    def train(self, resume: Path | None) -> dict[str, Any]:
        """Train, from the start or from a checkpoint on.

        Returns:
            What metrics.json says beside the seconds and the number of parameters; `metrics` are printed.
        """
        if resume is None and self.config.init_from:
            self.model.init_from(Path(self.config.init_from))
        self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=resume, weights_only=True)
        logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        metrics = self.saved.metrics | logged
        if self._validates():
            # Once more, because the last validation may have been some steps before the end.
            [last] = self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
            metrics |= {name: float(value) for name, value in last.items()}
        return {"metrics": metrics, "steps": self.trainer.global_step}

    def _validates(self) -> bool:
        """Whether there are batches to validate with."""
        if self.seconds.start_time() is not None:
            return bool(sum(_as_list(self.trainer.num_val_batches)))
        # The checkpoint was one of the last step: Lightning has not looked.
        return bool(self.trainer.limit_val_batches) and len(self.datamodule.val_dataloader()) > 0

    @property
    def last(self) -> Path:
        """The checkpoint that the run goes on from."""
        return self.folder / "checkpoints" / "last.ckpt"

    def callbacks(self) -> list[Callback]:
        """The run's callbacks, in the order in which they must act."""
        self.saved = SaveLast(self.last, self.config.save_every_n_steps)
        callbacks: list[Callback] = [
            StopAtBadLoss(self.last),
            self.seconds,
            self.saved,
        ]
        if self.config.seed_everything is not False:
            callbacks.insert(0, SeedSteps(self.config.seed_everything))
        if self.config.trainer.enable_progress_bar is not False:
            callbacks.append(TrainingProgress())
        return callbacks

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's trainer, with the run's folder, logger and callbacks.

        Raises:
            UserError: A precision in which the weights themselves would be kept.
        """
        precision = str(self.config.trainer.precision or "")
        if precision in REFUSED_PRECISIONS:
            raise UserError(
                f"trainer.precision is {precision}, in which the weights are kept: pictures do not fit them and "
                "small steps of the optimiser are lost",
                "give bf16-mixed or 32-true",
            )
        self.seconds = Timer()
        self.trainer_defaults["callbacks"] = self.callbacks()
        if self.config.trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(self.folder, name="", version="tensorboard")
        return super().instantiate_trainer(default_root_dir=str(self.folder), **kwargs)


def main(args: list[str]) -> None:
    """Run `wovr fit`.

    Raises:
        UserError: Wrong options, a folder that holds another run, data that cannot be used, a loss that is not finite.
    """
    if not any(word.partition("=")[0] in ("--config", "-c", "--model", "--help", "-h") for word in args):
        raise UserError("--config is not given", f"choose from: {', '.join(_trainings())}")
    run(FitCLI, args)


def run(cli_class: type[FitCLI], args: list[str]) -> None:
    """Run a verb that trains.

    Raises:
        UserError: See `main`.
    """
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        # Information there is hardware tables and advertisements.
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        cli = cli_class(args)
        with cli.resources:
            if cli.finished:
                print(f"{cli.folder}: done before with the same options, nothing to do")
                return
            fit(cli)
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}", f"see: wovr {cli_class.verb} --help") from error


def fit(cli: FitCLI) -> None:
    """Train, then write metrics and the marker.

    Raises:
        UserError: See `main`.
    """
    first_rank = getattr(rank_zero_only, "rank", 0) == 0
    if first_rank:
        cli.run_folder.start()
        with atomic_write(cli.folder / "config.yaml") as file:
            file.write(yaml.safe_dump(cli.options, sort_keys=False).encode())
    resume = cli.last if cli.config.resume and cli.last.exists() else None
    if resume is not None:
        checkpoint = read_checkpoint(resume)  # a damaged one is reported in our words
        for network in cli.model.networks().values():
            check_weights(network, checkpoint, resume)
    try:
        with _step_finished_first():
            result = cli.train(resume)
    except SystemExit as error:
        # Lightning turns Ctrl-C into exit status 1, and a termination signal into 0.
        if cli.trainer.received_sigterm:
            raise Terminated(signal.SIGTERM) from error
        raise KeyboardInterrupt from error
    except OSError as error:
        raise explain_os_error(error, Path(error.filename or cli.folder)) from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if resume is None or cli.seconds.start_time() is not None:
            raise
        # States of optimisers, loops and callbacks are restored by whoever wrote them, each in words of its own.
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"{resume}: cannot be gone on from ({text})", "give --resume false to begin again, or restore the file"
        ) from error
    if first_rank:
        result |= {
            "seconds": round(cli.seconds.time_elapsed(), 1),
            "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        }
        write_json(cli.folder / "metrics.json", result)
        cli.run_folder.finish()
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(result["metrics"].items()))
        print(f"{cli.last}: {result['steps']} steps in {result['seconds']} s; {shown}")


@contextmanager
def _step_finished_first() -> Iterator[None]:
    """Leave SIGTERM to Lightning, which ends a run after the step it is in, so that `SaveLast` can keep it."""
    before = signal.getsignal(signal.SIGTERM)
    if before in (None, signal.SIG_DFL, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _trainings() -> list[str]:
    """The configurations that say what to train by a class path."""
    files = {name: read_config_file(find_config(name)) for name in known_configs()}
    return [name for name, values in files.items() if "class_path" in (values.get("model") or {})]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
