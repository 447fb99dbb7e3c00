"""What is odd about calibration rows or a recipe, and what an emulated device said of its outputs."""

from __future__ import annotations

from dataclasses import dataclass

QUIET = ("rows", "clipped", "device")
"""Kinds that are worth a line in a table and no warning: they describe what was done as asked."""
JUDGED = ("copies", "neighbours", "device")
"""Kinds about the rows that judge an engine, and what it answers to them."""
OF_RECIPE = ("no-node",)
"""Kinds about the recipe."""
WHOLE = ("calibration", "gate", "batch")
"""Subjects that are all rows at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One finding of the lint, about one subject (an input, a tensor, or the rows as a whole)."""

    kind: str
    """`rows`, `few-rows`, `constant-input`, `batch-size`, `not-reached`, `not-finite`, `clipped`, `other-rows`;
    `other-inputs`: the rows that judge are on another scale than calibration;
    `copies`: gate rows that are copies of each other, or that calibration has seen;
    `neighbours`: an engine's answer to a row depends on the rows beside it;
    `no-node`: a name in the recipe that no node has;
    `device`: how outputs of an emulated device agree with those of this machine."""
    subject: str
    message: str

    @property
    def line(self) -> str:
        """The message, with the name of its subject where that is one input or tensor of several."""
        return self.message if self.subject in WHOLE else f"'{self.subject}': {self.message}"

    @property
    def of_calibration(self) -> bool:
        """Whether it is about calibration, and not about the recipe, the rows that judge or the answers to them."""
        return self.kind not in (*JUDGED, *OF_RECIPE)

    @property
    def warns(self) -> bool:
        """Whether a run says it aloud."""
        return self.kind not in QUIET
