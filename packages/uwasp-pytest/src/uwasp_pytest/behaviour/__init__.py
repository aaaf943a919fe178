"""The tests of behaviour: what users may expect of servers, whatever the handler is that they run under.

    pytest --pyargs uwasp_pytest.behaviour --uwasp-handler my-handler --uwasp-options "--threads 2"

They run on a real uWSGI. The applications, which it loads, are in a folder of their own, and are no modules of this
package.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["APPLICATIONS"]

APPLICATIONS = Path(__file__).parent / "applications"
