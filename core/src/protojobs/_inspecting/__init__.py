"""What `Inspector` is made of: what it answers, who may what, searching, acting, bulk operations. Private parts."""

from __future__ import annotations
