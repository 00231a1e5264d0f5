"""What an archive's artifacts are called here: by their own names, or as an operator says. Pure.

skopeo and regctl write what they are told, mostly a tag, and crane writes nothing unless it is asked to.
"""

from dataclasses import dataclass

from mirror.digest import Digest
from mirror.errors import DigestInvalid, MirrorError, NameInvalid
from mirror.layouts.layout import Named
from mirror.names import Names, Place
from mirror.oci import Reference, parse_tag

_SAY = "say which one with --as UPSTREAM/REPOSITORY (in the API: as=)"


@dataclass(frozen=True, slots=True)
class Onto:
    """The repository whose artifacts an archive holds, whatever it calls them.

    ``tag``: that of its only artifact; None: the archive says which tags it has.
    """

    place: Place
    tag: str | None

    @classmethod
    def of(cls, text: str, reference: Reference) -> "Onto":
        """What an operator means by ``<upstream>/<repository>``, with or without a tag; ``reference`` is what `Names`
        make of it. Raises `NameInvalid`.
        """
        if reference.tag is None:
            raise NameInvalid(f"{text!r} has a digest, which the archive itself says; name the repository only")
        return cls(Place(reference.upstream, reference.repository), _tag_in(text))


def reference_of(named: Named, onto: Onto | None, names: Names, *, alone: bool) -> Reference:
    """What one of an archive's artifacts is called here; ``alone``: it has no other. Raises `MirrorError`."""
    digest = named.descriptor.digest
    if onto is not None:
        if onto.tag is not None and not alone:
            raise NameInvalid(
                f"the archive holds several artifacts, which cannot all be :{onto.tag}; leave the tag out"
            )
        return _in(onto.place, onto.tag or _tag_in(named.name) or _bare(named.name), digest)
    if not named.name:
        raise NameInvalid(f"the archive does not say of which repository this is; {_SAY}")
    if _bare(named.name):
        raise NameInvalid(f"the archive calls this {named.name!r}, and does not say of which repository it is; {_SAY}")
    try:
        reference = names.of_text(named.name)
    except MirrorError as error:
        error.message = f"{error.message}; or {_SAY}"
        raise
    if reference.digest not in (None, digest):
        raise DigestInvalid(f"the archive calls this {reference}, and it has another digest: {digest}")
    return reference


def _in(place: Place, tag: str | None, digest: Digest) -> Reference:
    if tag is None:
        return Reference(place.upstream, place.repository, digest=digest)
    return Reference(place.upstream, place.repository, tag=parse_tag(tag))


def _bare(name: str) -> str | None:
    """A name that is a tag and no more."""
    return name if name and not set("/:@") & set(name) else None


def _tag_in(name: str) -> str | None:
    """The tag of a whole reference; none beside a digest, which says more."""
    _, colon, tag = name.rpartition("/")[2].partition(":")
    return tag if colon and "@" not in name else None
