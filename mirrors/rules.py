"""The refusal of a setting that cannot be kept, whatever it is a setting of."""


class RuleBroken(ValueError):
    """`setting` is which one, `str()` a sentence that says what would be right."""

    def __init__(self, setting: str, sentence: str) -> None:
        super().__init__(sentence)
        self.setting = setting
