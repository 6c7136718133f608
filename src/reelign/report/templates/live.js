"use strict";
(() => {
  // Sections whose parts the page's script holds on to; the others are replaced where they stand.
  const HELD = ["clips", "samples", "measures", "slices", "diversity"];
  const EVERY = 2000; // milliseconds between two looks
  const SHARE = 20; // so many times as long as it took to fetch the page, it is left as it is
  const KEPT = "reelign-report-scroll";
  let stamp = null, known = null, rest = 0, fetched = 0;

  const kept = sessionStorage.getItem(KEPT);
  if (kept) {
    sessionStorage.removeItem(KEPT);
    document.documentElement.style.scrollBehavior = "auto";
    scrollTo(0, Number(kept));
    document.documentElement.style.scrollBehavior = "";
  }

  const parts = (page) => new Map([...page.querySelectorAll("header.top, main > section")].map((part) => [part.id || "top", part]));
  const fetchPage = async () => {
    const began = performance.now();
    const answer = await fetch("./", { cache: "no-store" });
    if (!answer.ok) return null;
    const found = parts(new DOMParser().parseFromString(await answer.text(), "text/html"));
    fetched = performance.now();
    rest = SHARE * (fetched - began);
    return new Map([...found].map(([name, part]) => [name, part.outerHTML]));
  };
  const replace = (name, html) => {
    const old = parts(document).get(name);
    const template = document.createElement("template");
    template.innerHTML = html;
    const fresh = template.content.firstElementChild;
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    fresh.querySelectorAll("details").forEach((each, index) => { each.open = Boolean(open[index]); });
    old.replaceWith(fresh);
  };
  const update = async () => {
    const found = await fetchPage();
    if (!found) return false;
    const changed = known ? [...found.keys()].filter((name) => found.get(name) !== known.get(name)) : [];
    if (known && (found.size !== known.size || changed.some((name) => HELD.includes(name)))) {
      sessionStorage.setItem(KEPT, String(scrollY));
      location.reload();
      return false;
    }
    for (const name of changed) replace(name, found.get(name));
    known = found;
    return true;
  };
  const say = (text) => {
    let line = document.getElementById("standing");
    if (!line) {
      line = document.createElement("p");
      line.id = line.className = "standing";
      line.setAttribute("role", "status");
      document.querySelector("header.top .meta").before(line);
    }
    line.hidden = !text;
    if (line.textContent !== text) line.textContent = text;
  };
  const look = async () => {
    try {
      const answer = await fetch("state", { cache: "no-store" });
      if (answer.ok) {
        const state = await answer.json();
        if (state.stamp !== stamp && (state.over || performance.now() - fetched >= rest) && (await update())) stamp = state.stamp;
        say(state.standing);
      }
    } catch {
      say("Nobody answers any more: `reelign report --follow` has ended, and this page stays as it was.");
    }
    setTimeout(look, EVERY);
  };
  look();
})();
