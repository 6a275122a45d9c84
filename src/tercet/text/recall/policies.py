"""stub"""


class Policy: ...
