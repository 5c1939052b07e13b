"""Errors of registries, IMG040 to IMG059: each answer that a push or a look-up can get has its own."""

from __future__ import annotations

from flowkiln._base.errors import ExitCode
from flowkiln.images.errors import ImageError


class RegistryError(ImageError):
    """Base of the errors about registries of images."""

    exit_code = ExitCode.SERVICE


class RegistryUnreachable(RegistryError):
    """No connection to the registry could be made, or it broke, although it was tried several times.

    The message names the host and what the network said. Behind a proxy set ``HTTPS_PROXY``; hosts that must not
    go through it belong in ``NO_PROXY``.
    """

    code = "IMG040"
    title = "Registry cannot be reached"
    advice = "Check the registry's host name, your network and the proxy settings."


class RegistrySilent(RegistryError):
    """The registry accepted the connection and then said nothing for longer than the limit, several times.

    A slow transfer is never cut off, only one that stands still. What was uploaded is kept by most registries.
    """

    code = "IMG041"
    title = "Registry stopped answering"
    advice = "Try again later: what arrived at the registry is not sent again."


class RegistryUntrusted(RegistryError):
    """The TLS connection to the registry was refused: its certificate is not one that this machine trusts.

    Name your authority's PEM file in ``SSL_CERT_FILE`` or in the setting ``certificates``. A registry without TLS
    is used on loopback addresses only.
    """

    code = "IMG042"
    title = "Registry is not trusted"
    advice = "Name your authority's PEM file in SSL_CERT_FILE or in the setting `certificates`."


class RegistryDenied(RegistryError):
    """The registry wants a login, or does not take the one that it was given (401).

    flowkiln uses the logins of the docker and podman commands: ``auths``, ``credHelpers`` and ``credsStore`` of
    ``~/.docker/config.json`` (or ``DOCKER_CONFIG``), ``REGISTRY_AUTH_FILE`` and podman's ``auth.json``; for Amazon
    ECR also ``aws``, for Google's registries also ``gcloud``. The message says which one was used.
    """

    code = "IMG043"
    title = "Registry wants a login"
    advice = "Log in with `docker login HOST`."


class RegistryForbidden(RegistryError):
    """The registry knows who you are and does not allow what was asked (403).

    The message names the repository and the operation. Ask whoever administers it for the right to push or pull.
    """

    code = "IMG044"
    title = "Registry does not allow it"
    advice = "Ask for the right to push to or pull from the repository."


class RepositoryUnknown(RegistryError):
    """The registry has no repository of that name and does not make one when something is pushed.

    The hint says how it is made; for Amazon ECR it is the exact command.
    """

    code = "IMG045"
    title = "No such repository"
    advice = "Create the repository, or name another one in the setting `images.repository`."


class ManifestUnknown(RegistryError):
    """The registry holds no image, layer or other content of that name, although it is needed.

    The message names it. It was removed, or it was never pushed to this repository.
    """

    code = "IMG046"
    title = "Not in the registry"
    advice = "Check the name, tag or digest; push the image again if it was removed."


class RegistryThrottled(RegistryError):
    """The registry keeps answering "too many requests" (429).

    flowkiln waited as long as the registry asked for, several times. A login usually raises the limit.
    """

    code = "IMG047"
    title = "Too many requests to the registry"
    advice = "Try again later; a login usually raises the limit."


class RegistryFailed(RegistryError):
    """The registry failed (5xx), or answered what no registry answers.

    That is also an answer of success whose body is an error, or a page of something that is not a registry. It is
    taken neither for yes nor for no.
    """

    code = "IMG048"
    title = "Registry failed"
    advice = "Try again later; if it persists, show the message to whoever runs the registry."


class UploadFailed(RegistryError):
    """The registry did not take a blob or manifest that was sent to it.

    The message says what it answered. Nothing refers to what was sent: the image does not exist there.
    """

    code = "IMG049"
    title = "Upload was refused"
    advice = "Try again; if it persists, show the message to whoever runs the registry."


class PushNotVerified(RegistryError):
    """The registry accepted a manifest, but it could not be read back by its digest.

    So the image counts as not pushed: a task that named it might not start.
    """

    code = "IMG050"
    title = "Push could not be verified"
    advice = "Push again; a registry behind a cache may need some seconds."


class LoginHelperFailed(RegistryError):
    """The program that keeps the login for a registry is missing, failed or did not end in time.

    Such programs are named in ``credHelpers`` and ``credsStore`` of docker's ``config.json``. The message names the
    program and what it said when it failed; what it prints when it succeeds is a secret and is never shown.
    """

    code = "IMG051"
    title = "Credential helper failed"
    advice = "Run the program that the message names by hand, or log in again with `docker login HOST`."


class LoginFileUnreadable(RegistryError):
    """A file of logins exists and cannot be read: it is no JSON, or an entry is not what docker writes.

    The message names the file and the entry.
    """

    code = "IMG052"
    title = "File of logins cannot be read"
    exit_code = ExitCode.BAD_INPUT
    advice = "Repair the file, or move it away and log in again with `docker login HOST`."


class WrongContent(RegistryError):
    """What the registry served has another sha256 than the digest that it was asked for.

    Nothing of it was used. Either the registry's storage is damaged, or something on the way changes it.
    """

    code = "IMG053"
    title = "Registry served other content"
    advice = "Try again; if it persists, the registry's storage is damaged."
