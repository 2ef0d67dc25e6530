#!/bin/sh
# Installs the supervisor on a board, upgrades it, or takes it away again. docs/operations.md says what comes before and after.
#
# May be run again at any time: what is there already is kept. A file of the owner's is never overwritten; where the release
# has another one than the one that it was made from, that is put beside it as FILE.new, and told.
set -eu

usage() {
    cat <<'END'
Usage: install.sh [OPTION]...

  --from DIR      what to install: a folder with the two wheels (`./taskw build`, dist/) and, for their dependencies,
                  requirements.lock there or in the checkout; or a checkout. Default: dist/ of this checkout, else the checkout.
  --python FILE   Python 3.11 or newer (default: python3)
  --prefix DIR    where the program goes (default: /opt/tars-supervisor)
  --user NAME     whom it runs as; made where it is missing (default: tars). root: the manifest may give workers users
                  of their own, and those that it names are made.
  --root DIR      put everything below DIR instead of /: for an image, or a look. No user, no service is made.
  --dry-run       say what would be done, and do nothing
  --uninstall     stop it, and remove program and unit; settings, keys and data stay
  --purge         with --uninstall: remove these as well. Nothing can bring them back but your copies.
  --help          this
END
}

say() { printf 'install: %s\n' "$*"; }
fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}

# Says what is done, and does it.
run() {
    printf '  %s\n' "$*"
    [ -n "$dry" ] || "$@"
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
checkout=$(dirname -- "$here")
from='' python=python3 prefix=/opt/tars-supervisor user=tars root='' dry='' uninstall='' purge=''

while [ $# -gt 0 ]; do
    case $1 in
    --from | --python | --prefix | --user | --root)
        [ $# -ge 2 ] || fail "$1 needs a value; see --help"
        [ -n "$2" ] || fail "$1 has an empty value; see --help"
        eval "${1#--}=\$2"
        shift
        ;;
    --dry-run) dry=1 ;;
    --uninstall) uninstall=1 ;;
    --purge) purge=1 ;;
    --help)
        usage
        exit 0
        ;;
    *) fail "there is no option $1; see --help" ;;
    esac
    shift
done

case $prefix in
*[!A-Za-z0-9_./-]*) fail "--prefix: $prefix has characters that a unit file would take for something else; choose another folder" ;;
/*[!/]*) ;;
*) fail "--prefix: $prefix is no absolute path; write one such as /opt/tars-supervisor" ;;
esac
case $user in
[!a-z_]* | *[!a-z0-9_-]*) fail "--user: $user is no name of a user; it has a-z, 0-9, _ and -, and begins with a letter" ;;
esac
[ -z "$root" ] || [ -d "$root" ] || fail "--root: there is no folder $root; make it"
[ -z "$purge" ] || [ -n "$uninstall" ] || fail "--purge goes with --uninstall"
[ -n "$root$dry" ] || [ "$(id -u)" = 0 ] || fail "this needs root: sudo $0"
root=${root%/}

unit=tars-supervisor.service
settings=/etc/tars data=/var/lib/tars runtime=/run/tars units=/etc/systemd/system
versions=$prefix/versions shipped=$prefix/share
# As sd_booted(3) finds it out.
systemd=''
[ -n "$root" ] || [ ! -d /run/systemd/system ] || systemd=1

# folder MODE OWNER PATH: make it where it is missing, and see to mode and owner.
folder() {
    run install -d -m "$1" "$root$3"
    own "$2" "$3"
}

# own OWNER PATH: give it to its user, where there are users.
own() {
    [ -n "$root" ] || run chown "$1" "$2"
}

# place SOURCE MODE OWNER PATH: bring one file of the release to its place, unless the owner has changed it.
# What was shipped for it last is kept in $shipped, so that the owner's changes can be told from an older release.
place() {
    target=$root$4
    last=$root$shipped/$(basename -- "$4")
    if [ ! -e "$target" ]; then
        run install -m "$2" "$1" "$target"
        own "$3" "$4"
    elif cmp -s "$1" "$target"; then
        :
    elif cmp -s "$last" "$target"; then
        run install -m "$2" "$1" "$target"
        own "$3" "$4"
    elif cmp -s "$last" "$1"; then
        say "$4 is yours, and stays as it is"
    else
        run install -m "$2" "$1" "$target.new"
        own "$3" "$4.new"
        say "$4 is yours, and stays as it is; this release has another one: look at $4.new"
    fi
    cmp -s "$1" "$last" || run install -m 0644 "$1" "$last"
}

pip() {
    run "$root$version/bin/python" -m pip --quiet --disable-pip-version-check install "$@"
}

remove() {
    if [ -e "$root$1" ] || [ -h "$root$1" ]; then
        run rm -rf -- "$root$1"
    fi
}

if [ -n "$uninstall" ]; then
    if [ -n "$systemd" ] && [ -e "$units/$unit" ]; then
        say "stopping it, and its workers"
        run systemctl disable --now "$unit"
    fi
    say "removing the program and its unit"
    remove "$units/$unit"
    remove "$units/$unit.new"
    remove "$units/$unit.d/own-users.conf"
    [ ! -d "$root$units/$unit.d" ] || run rmdir --ignore-fail-on-non-empty "$root$units/$unit.d"
    remove "$prefix"
    [ -z "$systemd" ] || run systemctl daemon-reload
    if [ -n "$purge" ]; then
        say "removing settings, keys and data"
        for each in "$settings" "$data" "$runtime"; do remove "$each"; done
    else
        say "kept: $settings (settings, keys), $data (store, logs), and the user $user"
    fi
    exit 0
fi

# -- what is installed

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed, and $python is not; install it, or name one with --python"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "Python's venv module is missing; run: apt install python3-venv"

if [ -z "$from" ]; then
    from=$checkout
    [ ! -d "$checkout/dist" ] || from=$checkout/dist
fi
[ -d "$from" ] || fail "--from: there is no folder $from"
from=$(CDPATH='' cd -- "$from" && pwd)

# only PATTERN...: the one file that there is.
only() {
    if [ $# != 1 ] || [ ! -e "$1" ]; then
        fail "$from needs one wheel of tars_config and one of tars_supervisor; run: ./taskw build"
    fi
    printf '%s' "$1"
}

lock=$from/requirements.lock
if [ -f "$from/pyproject.toml" ]; then
    first=$from/client second=$from
    sources() { find "$from/supervisor" "$from/actors" "$from/api" "$from/schemas" "$from/client" -name '*.py' -o -name '*.sql'; }
else
    [ -f "$lock" ] || lock=$checkout/requirements.lock
    first=$(only "$from"/tars_config-*.whl)
    second=$(only "$from"/tars_supervisor-*.whl)
    sources() { printf '%s\n' "$first" "$second"; }
fi
[ -f "$lock" ] || fail "there is no requirements.lock in $from or $checkout, which names the dependencies; copy it there"
digest=$({
    "$python" --version
    sources | LC_ALL=C sort | while IFS= read -r each; do cat -- "$each"; done
    cat -- "$lock"
} | sha256sum | cut -c1-12)
version=$versions/$digest

say "program in $prefix"
folder 0755 root "$prefix"
folder 0755 root "$versions"
folder 0755 root "$shipped"
# Each release has an environment of its own, so that one that runs is never changed under its feet, and one that was
# interrupted is never used: the mark comes last.
if [ -e "$root$version/complete" ]; then
    say "$digest is installed already"
else
    run rm -rf -- "$root$version"
    run "$python" -m venv "$root$version"
    pip --require-hashes -r "$lock"
    pip --no-deps "$first" "$second"
    # Whom it runs as may not write there, and uncompiled it would take twice as long to start.
    run "$root$version/bin/python" -m compileall -q "$root$version/lib"
    run touch "$root$version/complete"
fi
before=$(readlink "$root$prefix/current" 2>/dev/null || :)
if [ "$before" != "versions/$digest" ]; then
    # rename(2) replaces the link at once.
    run ln -sfn "versions/$digest" "$root$prefix/next"
    run mv -T "$root$prefix/next" "$root$prefix/current"
    # The one before stays, for the way back; so does what a supervisor or a holder that runs was started from.
    for each in "$root$versions"/*; do
        case $each in
        */"$digest" | *"/${before##*/}" | *'/*') ;;
        *) grep -qsF -- "$each/" /proc/[0-9]*/cmdline || run rm -rf -- "$each" ;;
        esac
    done
fi

# -- whom it runs as

account() {
    id -u "$1" >/dev/null 2>&1 || run useradd --system --user-group --home-dir "$data" --no-create-home --shell /usr/sbin/nologin "$1"
    ! getent group audio >/dev/null || run usermod --append --groups audio "$1"
}

if [ -n "$root" ]; then
    say "below $root no user is made: $user has to be there on the machine itself"
elif [ "$user" != root ]; then
    account "$user"
fi

# -- settings and data

say "settings in $settings, data in $data"
# The first start adds the keys to the settings, so both folders are the user's.
folder 0700 "$user" "$settings"
# Workers with users of their own pass through these to what is theirs (own-users.conf); the start closes them where there are none.
passage=0700
[ "$user" != root ] || passage=0711
folder "$passage" "$user" "$data"
# systemd makes it, too, but `check` would miss it before the first start.
folder "$passage" "$user" "$runtime"
place "$here/services.schema.json" 0644 "$user" "$settings/services.schema.json"
place "$here/services.tars.toml" 0644 "$user" "$settings/services.toml"
# From its first start on, it holds the keys.
if [ ! -e "$root$settings/supervisor.env" ]; then
    run install -m 0600 "$here/supervisor.env" "$root$settings/supervisor.env"
fi
own "$user" "$settings/supervisor.env"

if [ "$user" = root ] && [ -z "$root" ] && [ -f "$settings/services.toml" ]; then
    sed -n 's/^[[:space:]]*user[[:space:]]*=[[:space:]]*"\([a-z_][a-z0-9_-]*\)".*/\1/p' "$settings/services.toml" | sort -u |
        while IFS= read -r each; do account "$each"; done
fi

# -- the unit

say "unit $unit"
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
sed "s,@PREFIX@,$prefix,g; s,@USER@,$user,g" "$here/$unit" >"$scratch/$unit"
folder 0755 root "$units"
place "$scratch/$unit" 0644 root "$units/$unit"
[ ! -f "$checkout/docs/operations.md" ] || run install -m 0644 "$checkout/docs/operations.md" "$root$shipped/operations.md"
if [ "$user" = root ]; then
    folder 0755 root "$units/$unit.d"
    place "$here/own-users.conf" 0644 root "$units/$unit.d/own-users.conf"
else
    remove "$units/$unit.d/own-users.conf"
fi

if [ -z "$systemd" ]; then
    say "systemd does not run here, so nothing was enabled"
else
    run systemctl daemon-reload
    run systemctl enable "$unit"
    if [ -z "$before" ]; then
        say "look at $settings/services.toml, then: systemctl start tars-supervisor"
    elif [ "$before" != "versions/$digest" ]; then
        say "for the new version: systemctl reload tars-supervisor"
    fi
fi
say "done"
