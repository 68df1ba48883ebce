"""Builds wheel and sdist, installs each into an empty environment, and uses it from another folder; run as a script.

By default the dependencies are those of the environment that runs the script, put on the path of the empty one; with
``--full`` pip installs them anew.
"""

import argparse
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_SDIST = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "README.md", "Makefile")
IN_WHEEL = ("theory/__init__.pyi", "numerics/__init__.pyi", "stagewise/command.py", "validation/paper_sentences.py")
# What a user does first: the version and four names that are imported when first used, from the installed files.
USED = """
import stagewise, sys
assert stagewise.theory.hierarchical_dataset().names[0] == "dog"
assert stagewise.numerics.TrainingConfig().lr > 0
for package in (stagewise, stagewise.theory, stagewise.numerics, stagewise.validation, stagewise.paper_figs):
    assert package.__file__.startswith(sys.prefix), package.__file__
print("imported from", stagewise.__file__)
"""


def call(*command, cwd):
    """Run a command; what it says goes to the terminal if it fails."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check(distribution, folder, *, full):
    """Install a distribution into an environment of its own, and use it from a folder that holds nothing of ours."""
    environment, elsewhere = folder / f"env{distribution.suffix}", folder / f"elsewhere{distribution.suffix}"
    elsewhere.mkdir()
    venv.create(environment, with_pip=True)
    python, command = environment / "bin" / "python", environment / "bin" / "stagewise"
    if not full:
        site = sysconfig.get_paths(vars={"base": str(environment), "platbase": str(environment)})["purelib"]
        (Path(site) / "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    call(python, "-m", "pip", "install", "--quiet", *([] if full else ["--no-deps"]), distribution, cwd=elsewhere)
    print(call(python, "-c", USED, cwd=elsewhere).strip())
    print(call(command, "--version", cwd=elsewhere).strip())
    listed = call(command, "list", cwd=elsewhere).splitlines()
    assert sum(line.startswith("claim ") for line in listed) > 80, listed
    if distribution.suffix != ".whl":
        return  # the other was built from this one
    drawn = call(command, "figures", "2", "--quick", "--out", elsewhere / "drawn", cwd=elsewhere)
    assert (elsewhere / "drawn" / "figure_02.png").stat().st_size > 10_000, drawn


def main():
    """Build, look into both archives, install and use both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="install the dependencies anew")
    full = parser.parse_args().full
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
        (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            held = {"/".join(member.split("/")[1:]) for member in archive.getnames()}
        assert set(IN_SDIST) <= held, set(IN_SDIST) - held
        with zipfile.ZipFile(wheel) as archive:
            held = set(archive.namelist())
        assert set(IN_WHEEL) <= held, set(IN_WHEEL) - held
        assert not [entry for entry in held if entry.startswith(("tests/", "docs/"))]
        for distribution in (wheel, sdist):
            print(f"{distribution.name}: {distribution.stat().st_size / 1e3:.0f} kB")
            check(distribution, folder, full=full)


if __name__ == "__main__":
    main()
