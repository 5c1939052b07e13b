"""The table of settings: every name with what its values look like and its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "path", "flag", "count", "items", "pairs"]
"""``pairs`` is a table from names to texts, held as ``name=text``."""
Plain = str | bool | int | tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table: a key, what its values look like, and its help for people."""

    key: str
    kind: Kind
    help: str
    default: Plain = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it: ``FLOWKILN_PYTHON_DOWNLOADS`` for ``python.downloads``."""
        return "FLOWKILN_" + self.key.replace(".", "_").replace("-", "_").upper()


TABLE: tuple[Setting, ...] = (
    Setting(
        key="store",
        kind="path",
        help="Folder that holds runs and artifacts. Default: `.flowkiln` of the project around the flow file.",
    ),
    Setting(
        key="cache", kind="path", help="Folder for wheels, environments and the index. Default: the user's cache."
    ),
    Setting(
        key="platforms",
        kind="items",
        help="Platforms that locks are made for. Default: linux/amd64, linux/arm64 and a host that isn't Linux.",
    ),
    Setting(
        key="indexes",
        kind="items",
        help="Package index URLs, first has precedence. Default: what pip or uv are told.",
    ),
    Setting(
        key="channels",
        kind="items",
        help="Conda channels as names or URLs, first has precedence. Default: as conda is told, or conda-forge.",
    ),
    Setting(
        key="conda.solver",
        kind="text",
        default="rattler",
        choices=("rattler", "conda", "mamba", "micromamba"),
        help="Who chooses conda packages: rattler, which is built in, or one of the others, driven by conda-lock.",
    ),
    Setting(
        key="conda.program",
        kind="path",
        help="The program of `conda.solver`. Default: the one on PATH, or that CONDA_EXE or MAMBA_EXE names.",
    ),
    Setting(
        key="credentials",
        kind="pairs",
        default=(),
        help="A command for each host that prints the token, or user and password, to log in with there; one "
        "`HOST=COMMAND` on each line of the variable.",
    ),
    Setting(
        key="keyring",
        kind="text",
        choices=("never", "subprocess"),
        help="Whether the program `keyring` is asked for passwords. Default: as UV_KEYRING_PROVIDER and "
        "PIP_KEYRING_PROVIDER say, else never.",
    ),
    Setting(
        key="torch-index",
        kind="text",
        default="https://download.pytorch.org/whl",
        help="Base URL of the indexes that `cuda` takes PyTorch's packages from: one for each variant.",
    ),
    Setting(
        key="python.downloads",
        kind="text",
        default="auto",
        choices=("auto", "never"),
        help="Whether an interpreter that the machine lacks may be downloaded.",
    ),
    Setting(key="python.mirror", kind="text", help="Base URL that interpreters are downloaded from."),
    Setting(
        key="certificates",
        kind="path",
        help="File or folder of certificates to trust, for downloads and for uv. Default: as SSL_CERT_FILE says.",
    ),
    Setting(
        key="download-timeout",
        kind="count",
        default=30,
        help="Seconds without a byte after which a download stalls.",
    ),
    Setting(
        key="lock-timeout",
        kind="count",
        default=120,
        help="Seconds that the solver may go without progress; ten times as many in all.",
    ),
    Setting(
        key="offline", kind="flag", default=False, help="Use the network for nothing; what is missing is an error."
    ),
    Setting(
        key="retries",
        kind="count",
        default=5,
        help="Attempts in a row without progress after which a download fails.",
    ),
    Setting(
        key="max-workers", kind="count", help="Tasks that run at once. Default: the number of processor cores."
    ),
    Setting(key="max-num-splits", kind="count", default=100_000, help="Widest foreach that may run."),
    Setting(
        key="isolation",
        kind="text",
        default="auto",
        choices=("auto", "fork", "spawn"),
        help="How a task's process is made: forked from a warm parent, spawned, or as is safe.",
    ),
    Setting(
        key="verify-env",
        kind="text",
        default="auto",
        choices=("auto", "digest", "stat", "full"),
        help="How a task's environment is proved before it starts: by its image's digest, by facts of its "
        "files, or by hashing every byte. `auto` is the digest in containers and facts elsewhere.",
    ),
    Setting(
        key="pass-environment",
        kind="items",
        default=(),
        help="Variables of the launcher that steps in a locked environment may see.",
    ),
    Setting(
        key="build.where",
        kind="text",
        default="container",
        choices=("container", "host", "never"),
        help="Where packages without a wheel are built: in a container of the platform, on this machine itself "
        "(their code can then do what you can do), or nowhere.",
    ),
    Setting(
        key="build.image",
        kind="text",
        default="python:{python}",
        help="Image that wheels are built in; `{python}` stands for X.Y. It brings the compilers.",
    ),
    Setting(key="build.network", kind="flag", default=False, help="Whether builds of wheels may use the network."),
    Setting(
        key="build.timeout", kind="count", default=1800, help="Seconds after which a build of a wheel is ended."
    ),
    Setting(
        key="images.base",
        kind="text",
        default="python:{python}-slim",
        help="Image that environments are baked on; `{python}` stands for the environment's X.Y.",
    ),
    Setting(
        key="images.repository",
        kind="text",
        help="Repository that images are pushed to, as `registry.example.com/team/flows`. Default: none.",
    ),
    Setting(
        key="images.policy",
        kind="text",
        default="if-missing",
        choices=("if-missing", "never"),
        help="Whether an image that the repository lacks is baked, or is an error.",
    ),
    Setting(
        key="images.compression",
        kind="text",
        default="gzip",
        choices=("gzip", "zstd"),
        help="How layers are compressed. zstd needs Docker 23, containerd 1.5 or newer.",
    ),
    Setting(
        key="docker.files",
        kind="text",
        default="auto",
        choices=("auto", "mount", "copy"),
        help="How code and results reach a container: mounted, or copied in and out. `auto` copies where the "
        "engine is on another machine.",
    ),
)
BY_KEY = {setting.key: setting for setting in TABLE}
