"""What `limits.py` tells and does when it is asked: as for the tests of behaviour."""

from uwasp_pytest.behaviour.inquiry import ask, figures, wait_until_it_stands_still

__all__ = ["ask", "figures", "wait_until_it_stands_still"]
