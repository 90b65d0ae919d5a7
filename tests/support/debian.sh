#!/bin/sh
# Installs the Debian packages named on the command line, for tests and benchmarks.
# It starts no service, removes no package, and does nothing when all of them are there.
set -eu

say() { printf 'debian.sh: %s\n' "$*"; }
fail() { printf 'debian.sh: error: %s\n' "$*" >&2; exit 1; }

[ $# -gt 0 ] || fail "usage: debian.sh PACKAGE..."
command -v dpkg-query >/dev/null || fail "this system has no dpkg; install by hand: $*"

missing() {
    for package in "$@"; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

wanted=$(missing "$@")
[ -n "$wanted" ] || exit 0
[ "$(id -u)" = 0 ] || fail "needs root to install: ${wanted}(as root: apt-get install $wanted)"

# Two test runs may come here at the same time; the second finds the work done.
exec 9>/run/waypost-debian.lock
flock 9
wanted=$(missing "$@")
[ -n "$wanted" ] || exit 0

# Maintainer scripts ask policy-rc.d before they start a daemon; 101 means "no".
policy=/usr/sbin/policy-rc.d
if [ -e "$policy" ]; then
    answer=0
    "$policy" postfix start >/dev/null 2>&1 || answer=$?
    [ "$answer" = 101 ] || fail "$policy would let services start; not installing: $wanted"
else
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
case " $wanted" in
    *" postfix "*)
        # Without this answer the package would configure this machine as a mail server.
        echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
        ;;
esac
say "installing, starting nothing: $wanted"
apt-get -qq update || say "could not refresh the package lists; going on with those here"
# --no-remove: rather fail than take away a mail server that is already here.
# shellcheck disable=SC2086
apt-get -qq -y --no-install-recommends --no-remove install $wanted >/dev/null ||
    fail "apt-get could not install: $wanted"
say "installed: $wanted"
