"""The mark that a picture's colours are machine-made; merged into the scan's XMP (IPTC Photo Metadata 2025.1)."""

from dataclasses import dataclass

from lxml import etree

from manifests.xml import UnsafeXmlError, legal, parse_xml

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_X = "adobe:ns:meta/"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_MM = "http://ns.adobe.com/xap/1.0/mm/"
_REF = "http://ns.adobe.com/xap/1.0/sType/ResourceRef#"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_XMP = "http://ns.adobe.com/xap/1.0/"
_OURS = "urn:x-diffcolor-batch:xmp:1.0:"
_PREFIXES = {
    "Iptc4xmpExt": _IPTC_EXT,
    "xmpMM": _MM,
    "stRef": _REF,
    "stEvt": _EVENT,
    "xmp": _XMP,
    "diffcolor": _OURS,
}
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = '\n<?xpacket end="w"?>'
MAX_BYTES = 16 << 20


class BadXmpError(ValueError):
    """XMP that cannot be merged into: not XML, not RDF, or unsafe."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a colorized picture states about its making. It has no date, so that outputs are byte-reproducible.

    Attributes:
        system, version: of the AI system, model included.
        prompt: the text that the colours follow.
        prompt_writer: the prompt's author, if known.
        original, original_sha256: the scan's URI and the hash of its file.
    """

    system: str
    version: str
    prompt: str
    original: str
    original_sha256: str
    prompt_writer: str | None = None


def parsed(packet: bytes) -> etree._Element:
    """The root of an XMP packet.

    Raises:
        BadXmpError: too large, not XML, not RDF; or it declares a document type, which is refused unread.
    """
    if len(packet) > MAX_BYTES:
        raise BadXmpError(f"{len(packet)} bytes, limit {MAX_BYTES}")
    try:
        root = parse_xml(packet)
    except UnsafeXmlError as error:
        raise BadXmpError(str(error)) from error
    if root.tag != f"{{{_RDF}}}RDF" and root.find(f"{{{_RDF}}}RDF") is None:
        raise BadXmpError("no RDF in it")
    return root


def marked(packet: bytes | None, mark: Mark | None) -> bytes | None:
    """The packet with the mark added and everything else kept; without a mark, the packet itself.

    Raises:
        BadXmpError: the packet is broken.
    """
    if mark is None:
        return packet
    root = parsed(packet) if packet else etree.Element(f"{{{_X}}}xmpmeta", nsmap={"x": _X})
    rdf = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f"{{{_RDF}}}RDF")
    if rdf is None:
        rdf = etree.SubElement(root, f"{{{_RDF}}}RDF", nsmap={"rdf": _RDF})
    about = next((description.get(f"{{{_RDF}}}about") for description in rdf), None) or ""
    history = [event for event in _take_out(rdf) if not _is_ours(event, mark.system)]
    ours = etree.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": about}, nsmap=_PREFIXES)

    def add(namespace: str, name: str, text: str) -> None:
        etree.SubElement(ours, f"{{{namespace}}}{name}").text = legal(text)

    add(_IPTC_EXT, "DigitalSourceType", SOURCE_TYPE)
    add(_IPTC_EXT, "AISystemUsed", mark.system)
    add(_IPTC_EXT, "AISystemVersionUsed", mark.version)
    add(_IPTC_EXT, "AIPromptInformation", mark.prompt)
    if mark.prompt_writer:
        add(_IPTC_EXT, "AIPromptWriterName", mark.prompt_writer)
    add(_OURS, "OriginalSHA256", mark.original_sha256)
    derived = etree.SubElement(ours, f"{{{_MM}}}DerivedFrom", {f"{{{_RDF}}}parseType": "Resource"})
    etree.SubElement(derived, f"{{{_REF}}}filePath").text = legal(mark.original)
    sequence = etree.SubElement(etree.SubElement(ours, f"{{{_MM}}}History"), f"{{{_RDF}}}Seq")
    sequence.extend(history)
    event = etree.SubElement(sequence, f"{{{_RDF}}}li", {f"{{{_RDF}}}parseType": "Resource"})
    for name, text in (
        ("action", "edited"),
        ("softwareAgent", f"{mark.system} {mark.version}"),
        ("parameters", "colours added by a machine from a text; luminance unchanged"),
    ):
        etree.SubElement(event, f"{{{_EVENT}}}{name}").text = legal(text)
    return (_BEGIN + etree.tostring(root, encoding="unicode", pretty_print=True) + _END).encode()


def _take_out(rdf: etree._Element) -> list[etree._Element]:
    """Removes the properties that the mark sets, and the history, whose entries it returns."""
    replaced = {
        f"{{{_IPTC_EXT}}}{name}"
        for name in (
            "DigitalSourceType",
            "AISystemUsed",
            "AISystemVersionUsed",
            "AIPromptInformation",
            "AIPromptWriterName",
        )
    } | {f"{{{_MM}}}DerivedFrom", f"{{{_OURS}}}OriginalSHA256"}
    history = []
    for description in list(rdf):
        for name in replaced & set(description.attrib):
            del description.attrib[name]
        for element in list(description):
            if element.tag == f"{{{_MM}}}History":
                history += element.findall(f"{{{_RDF}}}Seq/{{{_RDF}}}li")
            if element.tag in replaced | {f"{{{_MM}}}History"}:
                description.remove(element)
        if not len(description) and set(description.attrib) <= {f"{{{_RDF}}}about"}:
            rdf.remove(description)
    return history


def _is_ours(event: etree._Element, system: str) -> bool:
    """Whether `system` made the event: a picture that is made from one of ours lists only the new one."""
    agent = f"{{{_EVENT}}}softwareAgent"
    return (event.findtext(agent) or event.get(agent) or "").startswith(system)


def read_mark(packet: bytes) -> dict[str, str]:
    """The mark's plain properties by their local names.

    Raises:
        BadXmpError: the packet is broken.
    """
    root = parsed(packet)
    return {
        etree.QName(element).localname: element.text or ""
        for element in root.iter()
        if isinstance(element.tag, str) and element.tag.startswith((f"{{{_IPTC_EXT}}}", f"{{{_OURS}}}"))
    }
