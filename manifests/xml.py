"""Parsing untrusted XML: no entities, no document types, no network, no endless nesting."""

from lxml import etree


class UnsafeXmlError(ValueError):
    """Not XML, or XML with a document type."""


def parse_xml(content: bytes) -> etree._Element:
    """The root element of a document.

    Raises:
        UnsafeXmlError: not well-formed; or it declares a document type, as entity bombs do.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_blank_text=True)
    try:
        root = etree.fromstring(content.strip().rstrip(b"\0"), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise UnsafeXmlError(f"not XML ({error})") from error
    if root.getroottree().docinfo.doctype:
        raise UnsafeXmlError("it declares a document type, which is refused")
    return root


def legal(text: str) -> str:
    """`text` without the characters that XML cannot hold: captions from databases have vertical tabs and the like."""
    return "".join(
        char
        for char in text
        if char in "\t\n\r" or (char >= " " and not "\ud800" <= char <= "\udfff" and char < "\ufffe") or char > "\uffff"
    )


def local_name(element: etree._Element) -> str:
    """An element's name without its namespace: METS and ALTO come in many versions; "" for comments."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""
