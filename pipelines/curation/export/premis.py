"""PREMIS 3: the picture as a new object, made from the scan by an event of a software agent."""

from typing import Any

from lxml import etree

from manifests.xml import legal
from pipelines.images.formats.table import FORMATS

_NS = "http://www.loc.gov/premis/v3"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"


def premis(record: dict[str, Any], name: str, sha256: str, size: int) -> bytes:
    """A PREMIS document of one exported picture, from its record."""
    root = etree.Element(f"{{{_NS}}}premis", nsmap={None: _NS, "xsi": _XSI}, version="3.0")
    given, method, outcome = record["input"], record["method"], record["outcome"]
    made, scan = f"urn:sha256:{sha256}", f"urn:sha256:{given['sha256']}"
    event, agent = f"{made}#colorization", f"{method['software']} {method['version']}"

    def add(parent: etree._Element, *path: str, text: object = None) -> etree._Element:
        for part in path:
            parent = etree.SubElement(parent, f"{{{_NS}}}{part}")
        if text is not None:
            parent.text = legal(str(text))
        return parent

    def identified(parent: etree._Element, kind: str, value: str, type_: str = "URI") -> None:
        identifier = add(parent, f"{kind}Identifier")
        add(identifier, f"{kind}IdentifierType", text=type_)
        add(identifier, f"{kind}IdentifierValue", text=value)

    object_ = add(root, "object")
    object_.set(f"{{{_XSI}}}type", "file")
    identified(object_, "object", made)
    characteristics = add(object_, "objectCharacteristics")
    fixity = add(characteristics, "fixity")
    add(fixity, "messageDigestAlgorithm", text="SHA-256")
    add(fixity, "messageDigest", text=sha256)
    add(characteristics, "size", text=size)
    format_, written = add(characteristics, "format"), FORMATS.get(outcome["format"])
    add(format_, "formatDesignation", "formatName", text=written.mime if written else "application/octet-stream")
    if written:
        registry = add(format_, "formatRegistry")
        add(registry, "formatRegistryName", text="PRONOM")
        add(registry, "formatRegistryKey", text=written.pronom)
    add(object_, "originalName", text=name)
    relationship = add(object_, "relationship")
    add(relationship, "relationshipType", text="derivation")
    add(relationship, "relationshipSubType", text="has source")
    related = add(relationship, "relatedObjectIdentifier")
    add(related, "relatedObjectIdentifierType", text="URI")
    add(related, "relatedObjectIdentifierValue", text=scan)

    happened = add(root, "event")
    identified(happened, "event", event)
    add(happened, "eventType", text="modification")
    add(happened, "eventDateTime", text=method["finished_at"])
    detail = add(happened, "eventDetailInformation")
    text = f"{record['statement']} Text: {method['target_prompt']}"
    if outcome.get("hints"):
        text += f"; colours given by a person at x,y or x,y,width,height: {'; '.join(outcome['hints'])}"
    if outcome.get("reference_likeness"):
        text += f"; colours taken in part from {outcome['reference']}"
    add(detail, "eventDetail", text=text)
    result = add(happened, "eventOutcomeInformation")
    add(result, "eventOutcome", text="success")
    note = f"{outcome['luminance_mismatches']} pixels differ in luminance by {outcome['luma_formula']}"
    add(result, "eventOutcomeDetail", "eventOutcomeDetailNote", text=note)
    for kind, value in (("Agent", agent), ("Object", scan), ("Object", made)):
        link = add(happened, f"linking{kind}Identifier")
        add(link, f"linking{kind}IdentifierType", text="URI" if kind == "Object" else "software")
        add(link, f"linking{kind}IdentifierValue", text=value)
        if kind == "Object":
            add(link, "linkingObjectRole", text="source" if value == scan else "outcome")

    software = add(root, "agent")
    identified(software, "agent", agent, "software")
    add(software, "agentName", text=method["software"])
    add(software, "agentType", text="software")
    add(software, "agentVersion", text=method["version"])
    add(software, "agentNote", text=f"base model {method['base_model']}, sha256 {method['base_model_digest']}")
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)
