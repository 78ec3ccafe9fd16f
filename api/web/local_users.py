"""Users of this host who need no key: the operator, and those whom `api.local_users` names."""

from __future__ import annotations

import pwd
from collections.abc import Mapping

from api.contract.exits import Exit, ExitError
from api.contract.settings import ApiSettings
from api.web.principal import OPERATOR, KeyScope, Principal


class LocalUsersError(ExitError):
    """A user who is named is none, or may do what nobody knows; the message says what to write."""

    code = Exit.SETUP


def local_users(settings: ApiSettings, operator: int) -> Mapping[int, Principal]:
    """Return who the users of this host are, by uid; raises `LocalUsersError`.

    A proxy's user is nobody: behind its connections is whoever reaches it.
    """
    users = dict(map(_local_user, settings.local_users))
    proxies = {_entry(user).pw_uid for user in settings.proxy_uids}
    return {uid: who for uid, who in {**users, operator: OPERATOR}.items() if uid not in proxies}


def _local_user(text: str) -> tuple[int, Principal]:
    """Read `alice:infer+read`; the user's login name is the owner of what they make."""
    user, _, written = text.partition(":")
    words = written.split("+")
    if not set(words) <= {scope.value for scope in KeyScope}:
        raise LocalUsersError(
            f"api.local_users: {text!r} is not USER:SCOPE+SCOPE, with scopes out of {', '.join(KeyScope)}."
        )
    found = _entry(user)
    return found.pw_uid, Principal(None, frozenset(map(KeyScope, words)), owner=found.pw_name)


def _entry(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError) as error:
        raise LocalUsersError(
            f"This host has no user {user!r}, whom api.local_users or api.proxy_uids names."
        ) from error
