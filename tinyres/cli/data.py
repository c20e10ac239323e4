"""`tinyres data`: fetch, decode and describe data."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
from typing import Annotated

import typer

from tinyres.cli.command import command
from tinyres.cli.root import Cache, Data, app
from tinyres.cli.teaching import panel_of
from tinyres.cli.usage import Group
from tinyres.console import Console, shell_line

FEW = 10_000
"""Pictures to train on: a guess, between what was tried with 300 and with 100,000."""

ImageSize = Annotated[int, typer.Option(help="Side of the decoded pictures, in pixels.")]


class DataCommands(Group):
    """What is done to data before a model is trained on it."""

    examples = (
        ("fetch and decode Tiny ImageNet", "tinyres data prepare"),
        ("the mean and std of your own pictures", "tinyres data stats --data photos"),
    )


data_app = typer.Typer(cls=DataCommands, help="Fetch, decode and describe data.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel=panel_of("data"))


@command(
    data_app,
    examples=(
        ("fetch Tiny ImageNet, check it and decode it", "tinyres data prepare"),
        ("from a zip that is here already", "tinyres data prepare --data tiny-imagenet-200.zip"),
        ("a folder with a folder of pictures per class", "tinyres data prepare --data photos"),
    ),
)
def prepare(out: Console, data: Data = "tiny-imagenet", image_size: ImageSize = 64, cache: Cache = None) -> None:
    """Fetch and decode a data set once, on all cores; training uses the result."""
    out.log(f"data {data}")
    from tinyres.data.dataset import describe, open_dataset

    dataset = open_dataset(data, image_size=image_size, cache_dir=cache, progress=out)
    out.result(
        dataset.manifest,
        describe(dataset),
        shell_line("data", "stats", "--data", data),
        _train_on(data, dataset.manifest.counts["train"]),
    )


@command(
    data_app,
    examples=(
        ("of Tiny ImageNet", "tinyres data stats"),
        ("of your own pictures, as JSON", "tinyres data stats --data photos --json"),
    ),
)
def stats(out: Console, data: Data = "tiny-imagenet", image_size: ImageSize = 64, cache: Cache = None) -> None:
    """How many pictures there are of how many classes, and the training pictures' mean and std per RGB channel."""
    out.log(f"data {data}")
    from tinyres.data.dataset import describe, open_dataset

    dataset = open_dataset(data, image_size=image_size, cache_dir=cache, progress=out)
    statistics = dataset.manifest.statistics
    lines = [("mean", statistics.mean), ("std", statistics.std), ("std of all pixels", statistics.std_pixels)]
    text = "\n".join(f"{name:18}{red:.4f}  {green:.4f}  {blue:.4f}" for name, (red, green, blue) in lines)
    reading = "std is the mean of each picture's own: training divides by it, as the seed did"
    out.result(statistics, f"{describe(dataset)}\n{text}\n{reading}", _train_on(data, dataset.manifest.counts["train"]))


def _train_on(data: str, pictures: int) -> str:
    """The command; few pictures do better from a model that has seen many."""
    return shell_line("train", "--data", data, *(("--init", "nano") if pictures < FEW and data != "shapes" else ()))
