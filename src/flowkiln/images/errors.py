"""Errors of images: IMG001 to IMG019 of references and bases, IMG020 onwards of baking, IMG040 of registries."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError


class ImageError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.images``."""


# -- references and bases: IMG001 to IMG019 --------------------------------------------------------------------


class BadReference(ImageError):
    """An image reference is not written as ``[host[:port]/]repository[:tag][@sha256:...]``.

    Repositories are in lower case; a digest is ``sha256:`` with 64 hexadecimal digits.
    """

    code = "IMG001"
    title = "Not an image reference"
    advice = "Write for example registry.example.com/team/flows or python:3.11-slim."


class BaseAbsent(ImageError):
    """The registry has no image under the reference of a base, or no longer the manifest that the lock pins.

    Registries answer so for a repository that you may not see, too. A pinned base that was removed can be pinned
    anew with ``flowkiln env lock --upgrade-base``; images that were baked on it stay what they are.
    """

    code = "IMG002"
    title = "No such base image"
    advice = "Check the reference, and that you are logged in to its registry."


class BaseOfAnotherPlatform(ImageError):
    """A base image is not made for the platform that an environment is baked for.

    The message says which platforms it has. Name another base, or drop the platform from the environment.
    """

    code = "IMG003"
    title = "Base image lacks the platform"
    advice = "Name a base that has the platform, or drop the platform from the environment."


class BasePythonDiffers(ImageError):
    """A base image has no Python, another X.Y, or a release outside the bounds of the lock.

    Nothing is compiled or installed into a base: name one that has the Python of the environment.
    """

    code = "IMG004"
    title = "Base image has not the Python of the environment"


class BaseVersionUnknown(ImageError):
    """A base image has a Python, and nothing in it says which release: no config, package database or header.

    A base is never run to find out. Declare it in the base itself: ``ENV PYTHON_VERSION=3.11.9`` in its Dockerfile.
    """

    code = "IMG005"
    title = "Release of the base image's Python is not known"
    advice = "Declare it in the base: `ENV PYTHON_VERSION=X.Y.Z` in its Dockerfile."


class BaseLibraryUnfit(ImageError):
    """The C library of a base image cannot carry the packages of the lock.

    Locked wheels are made for glibc of some version and newer; musl, as in Alpine Linux, is another library. Name a
    base of a newer system, or lock with a lower floor.
    """

    code = "IMG006"
    title = "Base image's C library does not fit"


class BaseUnreadable(ImageError):
    """A base image is not what images are: a manifest of schema 1, a layer that is no archive, a broken config.

    Pull and push it with a present tool, which writes it anew; or name another base.
    """

    code = "IMG007"
    title = "Base image cannot be read"
    advice = "Pull and push it with a present tool, or name another base."


# -- baking: IMG020 to IMG039 ----------------------------------------------------------------------------------


class ContentDamaged(ImageError):
    """A file that belongs into a layer is gone from the cache or was changed there.

    Nothing was pushed or loaded. The wheels concerned are unpacked anew once; if it happens again, something keeps
    writing into the cache: `flowkiln cache gc` removes it, and it is made again.
    """

    code = "IMG020"
    advice = "Run the command again; if it happens again, `flowkiln cache gc --keep 0` frees what was changed."
    title = "The cache was changed while an image was baked"
    exit_code = ExitCode.ENVIRONMENT


class LayerDiffers(ImageError):
    """A layer that was made again has other bytes than its record says.

    Equal inputs give equal bytes with one version of flowkiln, so either the record is of another builder or a file
    of the cache was changed, or the team's catalog tells something wrong. Nothing was pushed, and the record in the
    cache is dropped: baking again makes one. The hint names the entry of the catalog, if there was one.
    """

    code = "IMG021"
    advice = "Bake again: the record is made anew."
    title = "A layer differs from its record"
    exit_code = ExitCode.ENVIRONMENT


class ForeignImage(ImageError):
    """Under the tag of an image stands something that flowkiln did not bake from this lock.

    Its labels or its layers are not those of the environment. It is neither used nor overwritten: remove the tag,
    or bake with `--rebuild`, which replaces it.
    """

    code = "IMG022"
    title = "Another image stands under the tag"
    exit_code = ExitCode.ENVIRONMENT


class CompilerFailed(ImageError):
    """The interpreter that compiles an image's bytecode failed, or is not the Python that the lock names.

    Files that are no Python of that version are left out and are no failure. This is the interpreter itself: it was
    replaced by another version since it was found, was killed, or ran out of memory.
    """

    code = "IMG023"
    title = "Bytecode could not be compiled"
    exit_code = ExitCode.ENVIRONMENT
    advice = "Run it again; if the interpreter was updated, `flowkiln env lock --base` pins what there is now."


class LoadDiffers(ImageError):
    """The local engine took an image and made another one of it: its id or its layers are not those that were sent.

    The image was not given its name. An engine that rewrites what it loads cannot be used with baked environments.
    """

    code = "IMG030"
    title = "The engine changed an image"
    exit_code = ExitCode.ENVIRONMENT
    advice = "Update the engine; `docker version` shows which it is."


class BadLayout(ImageError):
    """The target folder holds something that is no OCI image layout of a version that flowkiln knows.

    Nothing was written. Layouts have a file ``oci-layout`` with the version 1.0.0 and an ``index.json``.
    """

    code = "IMG031"
    title = "Not an OCI layout"
    advice = "Name an empty or a new folder."


class RegistryNeeded(ImageError):
    """A registry has to be asked, and the network may not be used.

    What is known of bases and images is kept in the cache: run the same command once without `--offline`.
    """

    code = "IMG027"
    title = "A registry is needed, offline"
    exit_code = ExitCode.SERVICE


class CompilerMissing(ImageError):
    """The lock says which Python compiles the bytecode of an image, and it is not to be had here.

    Another version would give another image under the same lock, so that flowkiln does not take one. Install that
    very version, start a container engine, bake where it is there, or decide anew with
    `flowkiln env lock --upgrade-base`.
    """

    code = "IMG024"
    title = "The Python that compiles bytecode is missing"


class NotBaked(ImageError):
    """`images.policy` is `never`, and an image that a step needs is not there.

    Bake it where that is allowed, for example in CI: `flowkiln env bake FLOW.py --push`.
    """

    code = "IMG025"
    title = "An image is missing and may not be baked"


class NoRepository(ImageError):
    """An image is to be pushed, and nobody has said where to.

    The setting `images.repository` names the repository of all images, such as `registry.example.com/team/flows`.
    """

    code = "IMG026"
    title = "No repository for images"


class ForeignProgram(ImageError):
    """A package of the lock holds programs for other processors than the image's, and none for its own.

    Its file name, or the folder of its channel, says that it is for this platform, and its content says otherwise:
    importing it would fail with "wrong ELF class" or "cannot open shared object file". Nothing was pushed or
    loaded. Another version of the package, or another index or channel, may have a right one.
    """

    code = "IMG029"
    title = "A package is for another processor"
    exit_code = ExitCode.ENVIRONMENT
    advice = "Exclude that version where the environment is declared, and lock again."


class NoImage(ImageError):
    """The engine has no such image, although pulling it seemed to succeed.

    An image that is only in another engine has to be pushed to a registry, or loaded into this one.
    """

    code = "IMG028"
    title = "The engine has no such image"
