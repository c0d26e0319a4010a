"""Ten thousand connections ended in every state: nothing is left of them, and the process does not grow."""

import support
from leaks import TIGHT, LeakTests


class Roomy(LeakTests, support.Case):
    each, rounds = 10, 7
    least = 10000


class Tight(LeakTests, support.Case):
    each, rounds = 10, 7
    least = 10000
    workers_extra = TIGHT
