"""``basis-bt data sample``: a synthetic market folder."""

from pathlib import Path

import click


@click.command("sample")
@click.argument(
    "folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path("data/sample")
)
@click.option("--seed", type=click.IntRange(min=0), default=20240101, show_default=True, help="Same seed, same bytes.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier sample; anything else is left alone.")
def command(folder: Path, seed: int, overwrite: bool) -> None:
    """Write a synthetic market folder (default: data/sample).

    A year of hourly bars and funding of three coins on two venues, made of random numbers: no real prices.
    """
    from basis_bt.market.sample import write_sample

    files = write_sample(folder, seed=seed, overwrite=overwrite)
    root = folder.resolve()
    for path in files:
        click.echo(f"{path.stat().st_size:>9,}  {path.relative_to(root).as_posix()}")
    total = sum(path.stat().st_size for path in files)
    click.echo(f"{total:>9,}  bytes in {len(files)} files under {folder}")
    click.echo(f"Synthetic: random numbers from seed {seed}, no real prices. See {folder / 'README.md'}.")
