"""A few hundred connections ended in every state: nothing is left of them. The soak suite does it with ten thousand."""

import support
from leaks import STATES, TIGHT, Crowd, LeakTests


class Roomy(LeakTests, support.Case):
    each = 5
    least = 600

    def test_gone_while_nobody_listens(self):
        """Whom the gateway neither reads from nor writes to is found gone by a heartbeat or by open_timeout."""
        gw = self.start_gateway("60s", heartbeat="300ms")
        for ending in (Crowd.fin, Crowd.reset):
            with self.subTest(ending=ending.__name__):
                ending(Crowd(gw, self.ports, self.each, [state for state in STATES if state.deaf]))
                self.nothing_left(gw)


class Tight(LeakTests, support.Case):
    each = 3
    least = 3 * len(STATES)
    workers_extra = TIGHT
