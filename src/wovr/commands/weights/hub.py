"""`wovr weights push|pull`: packed weights to and from the Hugging Face hub. The client is imported when it is used."""

from __future__ import annotations

import shutil
from pathlib import Path

from wovr.commands.places import SHIPPED
from wovr.commands.weights.manifest import CARD, MANIFEST, check_file, read_manifest
from wovr.errors import UserError
from wovr.runs import MAX_JSON

MEGABYTES = 1000.0
"""What is pulled at most, unless more is allowed."""


def push(repo: str, folder: Path = SHIPPED, private: bool = False, megabytes: float = MEGABYTES) -> None:
    """Upload packed weights to a repository of the Hugging Face hub, which is made where there is none.

    Files are held against weights.json before; others in the folder stay where they are. Who you are there is a matter
    of `hf auth login` or of HF_TOKEN.

    Args:
        repo: Its name, NAMESPACE/NAME.
        folder: What `wovr weights pack` has made.
        private: Make the repository a private one.
        megabytes: All files together may have.
    """
    files = read_manifest(folder / MANIFEST, 1e6 * megabytes)
    for name, expected in files.items():
        check_file(folder / name, name, expected)
    import huggingface_hub

    try:
        hub = huggingface_hub.HfApi()
        hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[MANIFEST, *files],
            commit_message="Weights of wovr",
        )
    except Exception as error:  # of the client, of its validation, of the connection: classes differ by version
        raise _explain(repo, error) from error
    print(f"{repo}: {len(files) + 1} files, {sum(file['bytes'] for file in files.values()) / 1e6:.1f} MB")


def pull(repo: str, out: Path = SHIPPED, revision: str = "main", megabytes: float = MEGABYTES) -> None:
    """Download packed weights from a repository of the Hugging Face hub.

    weights.json comes first: it names the files, which are then held against their sizes and SHA-256. Nothing else of
    the repository is fetched, and nothing is unpickled, here or when they are used.

    Args:
        repo: Its name, NAMESPACE/NAME.
        out: Folder to make.
        revision: Branch, tag or commit.
        megabytes: All files together may have.
    """
    if out.exists():
        raise UserError(f"{out}: is there already", "choose another --out, or remove it")
    import huggingface_hub

    begun = out.with_name(f".{out.name}.pulling")
    whole = out.with_name(f".{out.name}.pulled")
    for folder in (begun, whole):
        shutil.rmtree(folder, ignore_errors=True)  # what a killed pull of ours has left

    def fetch(name: str, most: int) -> Path:
        try:
            path = Path(huggingface_hub.hf_hub_download(repo, name, revision=revision, local_dir=begun))
        except Exception as error:  # as above
            raise _explain(repo, error) from error
        if path.is_symlink() or path.stat().st_size > most:
            raise UserError(f"{repo}: {name} is larger than it may be", "do not use these weights")
        return path

    try:
        whole.mkdir(parents=True)
        manifest = fetch(MANIFEST, MAX_JSON)
        files = read_manifest(manifest, 1e6 * megabytes)
        for name, expected in files.items():
            path = fetch(name, expected["bytes"])
            check_file(path, name, expected)
            (whole / name).parent.mkdir(exist_ok=True)
            path.replace(whole / name)
        manifest.replace(whole / MANIFEST)
        whole.rename(out)
    finally:
        for folder in (begun, whole):
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{out}: {len(files) + 1} files, sizes and SHA-256 as {MANIFEST} says; see {out / CARD}")


def _explain(repo: str, error: Exception) -> UserError:
    """One line of what the hub's client says in many."""
    told = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{repo}: {told}", "check the name, the connection, and who you are: hf auth login")
