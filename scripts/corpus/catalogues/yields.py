"""The yields of packages on Debian 12: Portuguese sentences of 6 to 40 words without placeholders.

The numbers are by variant. In the name of a package for one language, `{}` replaces the language. Another
release or language has other numbers of the same order, which suffices for a choice. Packages that are
missing here are guessed.
"""

from __future__ import annotations

MEASURED = {name: int(sentences) for name, _, sentences in (entry.partition(":") for entry in """
    adonthell-data:1500 aisleriot:230 audacity-data:710 blender-data:5100 brasero-common:430 calibre:560
    cantor:190 cataclysm-dda-data:10100 chromium-l10n:3300 cups-client:290 darktable:1100 debconf-doc:240
    debhelper:1100 debian-handbook:5000 debian-history:190 debian-reference-{}:3200 digikam-data:1700
    eog:310 evince-common:200 evolution-common:1600 evolution-data-server-common:290 freeciv-data:680
    gajim:200 gcompris-qt-data:1800 gedit-common:260 genius-common:520 geomview:880 gimp-data:1500 glom:270
    gnome-applets-data:360 gnome-boxes:140 gnome-calculator:160 gnome-devel-docs:2300
    gnome-system-monitor:340 gnome-terminal-data:260 gnome-user-docs:2500 gnucash-common:2000
    gnumeric-common:820 gramps:1800 harden-doc:1500 hexchat-common:170 inkscape:2100
    installation-guide-amd64:2300 kalzium-data:600 kate5-data:880 kde-cli-tools-data:240 kdenlive-data:460
    kdepim-addons:210 kdepim-runtime:290 kdevelop-l10n:480 khelpcenter:350 kid3-core:370 kinfocenter:150
    kmail:680 kmymoney-common:1500 konqueror:880 kphotoalbum:490 krusader:1100 kturtle:450 kvirc-data:1100
    libqt5webengine-data:570 libreoffice-help-{}:25100 libreoffice-l10n-{}:3800 lincity-ng-data:470
    lyx-common:790 manpages-{}:1300 manpages-{}-dev:760 marble-data:260 mate-user-guide:1300 mediawiki:2800
    minetest-data:550 parley-data:430 pidgin-data:530 plasma-desktop-data:640 plasma-nm:200
    plasma-workspace-data:560 po4a:1100 prusa-slicer:810 pulseeffects:280 rhythmbox-data:210 seahorse:270
    shotwell-common:480 singularity:250 step:180 svn-buildpackage:380 tellico-doc:600 umbrello-data:610
    vlc-l10n:1900
    """.split())}


def measured_sentences(package: str, variants: set[str]) -> int | None:
    """What the package gives for these variants together; nothing if it was not measured."""
    for variant in variants:
        name = variant.lower().replace("_", "-")
        parts = package.split("-")
        size = name.count("-") + 1
        for start in range(1, len(parts) - size + 1):
            if "-".join(parts[start : start + size]) == name:
                generic = "-".join([*parts[:start], "{}", *parts[start + size :]])
                if generic in MEASURED:
                    return MEASURED[generic]
    return MEASURED[package] * len(variants) if package in MEASURED else None
