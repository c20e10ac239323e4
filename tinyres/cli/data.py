"""`tinyres data`: fetch, decode and describe data."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import typer

from tinyres.cli.command import command
from tinyres.cli.root import Cache, Data, app
from tinyres.console import Console

data_app = typer.Typer(help="Fetch, decode and describe data.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@command(data_app)
def prepare(out: Console, data: Data = "tiny-imagenet", image_size: int = 64, cache: Cache = None) -> None:
    """Fetch and decode a data set once, on all cores; training uses the result."""
    from tinyres.data.dataset import open_dataset

    dataset = open_dataset(data, image_size=image_size, cache_dir=cache, progress=out)
    manifest = dataset.manifest
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    out.result(
        manifest,
        f"{data}: {counts} pictures of {len(manifest.class_ids)} classes, {manifest.image_size}x{manifest.image_size};"
        f" {len(manifest.unreadable)} unreadable",
    )


@command(data_app)
def stats(out: Console, data: Data = "tiny-imagenet", image_size: int = 64, cache: Cache = None) -> None:
    """Mean and standard deviation per RGB channel of the training pictures."""
    from tinyres.data.dataset import open_dataset

    statistics = open_dataset(data, image_size=image_size, cache_dir=cache, progress=out).manifest.statistics
    lines = [("mean", statistics.mean), ("std", statistics.std), ("std of all pixels", statistics.std_pixels)]
    text = "\n".join(f"{name:18}{red:.4f}  {green:.4f}  {blue:.4f}" for name, (red, green, blue) in lines)
    out.result(statistics, f"{text}\nstd is the mean of each picture's own: training divides by it, as the seed did")
