"""What a host needs before it can be part of a cluster: the project, an environment with it, images."""

import shutil
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from hosts import HOME, ROOT, Host

from trainable.synthetic import draw_study

PROJECT = HOME / "thawline"
WEIGHTS = ROOT.parent / "shared" / "weights" / "mobilenetv2_imagenet_notop.weights.h5"
FOLDERS = ("search", "trainable", "analysis", "configs", "clusters")
BROUGHT = (*FOLDERS, "pyproject.toml", "requirements.lock", "README.md", "LICENSE")


def bring_project(host: Host) -> None:
    """The project's folder, as somebody copies it to a machine."""
    target = on(host, PROJECT)
    for name in BROUGHT:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        if not (target / name).exists():
            target.mkdir(exist_ok=True)
            copy(source, target / name)


def make_environment(host: Host) -> None:
    """An environment that has all packages of requirements.lock, as pip would leave it, but not the project itself.

    Nothing is copied: it looks into this process's own packages, by a path, so that what is installed there as editable
    is not seen.
    """
    environment = PROJECT / "venv"
    host.run(f"{Path(sys.executable).resolve()} -m venv --without-pip {environment}")
    [packages] = on(host, environment / "lib").glob("python3*/site-packages")
    (packages / "zz_installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("ray", "pip"):
        code = (Path(sys.prefix) / "bin" / name).read_text().split("\n", 1)[1]
        program = on(host, environment / "bin" / name)
        program.write_text(f"#!{environment}/bin/python\n{code}")
        program.chmod(0o755)


def other_than_locked() -> list[str]:
    """Packages of requirements.lock that are not installed here in that version: a host without network lacks them."""
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    installed = {each.name.lower().replace("_", "-"): each.version for each in distributions()}
    return [name for name, version in pairs if installed.get(name.lower().replace("_", "-")) != version]


def install_project(host: Host) -> None:
    """The project installed in that environment, editable."""
    bring_project(host)
    make_environment(host)
    host.run(f"{PROJECT}/venv/bin/pip install --quiet --no-deps --no-build-isolation --editable {PROJECT}", seconds=300)


def bring_images(host: Host) -> None:
    """Drawn images, and weights where this project's own are at hand, under the home of this host alone."""
    draw_study(on(host, HOME), images_per_class=240, image_size=32, seed=1)
    if WEIGHTS.exists():
        shutil.copy(WEIGHTS, on(host, HOME))


def on(host: Host, path: Path) -> Path:
    """A file of a host as this process sees it."""
    return host.files / path.relative_to("/")
