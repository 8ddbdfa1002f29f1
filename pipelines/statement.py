"""What every record, page and export says of the pictures."""

STATEMENT = (
    "The colours were made by a machine from a text. They are a guess, not evidence. The luminance is the scan's."
)
LUMA_FORMULA = "(19595*R + 38470*G + 7471*B + 32768) >> 16"  # diffcolor.luminance.luma
