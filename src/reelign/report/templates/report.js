"use strict";
(() => {
  const HOLD = 0.5; // seconds that the last frame stays before all clips start again
  const FIRST = 6; // prompts shown before "show all"
  const LOOSE = 0.12; // seconds a playing clip may stray from the common clock

  for (const tabs of document.querySelectorAll("[data-tabs]")) {
    const buttons = [...tabs.querySelectorAll("[data-tab]")];
    const choose = (chosen) => {
      for (const button of buttons) {
        button.setAttribute("aria-pressed", String(button === chosen));
        document.getElementById(button.dataset.tab).hidden = button !== chosen;
      }
    };
    for (const button of buttons) button.addEventListener("click", () => choose(button));
    tabs.hidden = false;
    choose(buttons.find((button) => button.getAttribute("aria-pressed") === "true") || buttons[0]);
  }

  // A table or a strip that is wider than the window says so, and fades where it goes on.
  const hint = (scroll) => {
    const left = scroll.scrollLeft > 4, right = scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 4;
    scroll.dataset.more = [left && "left", right && "right"].filter(Boolean).join(" ");
    const before = scroll.previousElementSibling;
    if ((left || right) && !before.matches(".hint")) {
      const note = document.createElement("p");
      note.className = "hint";
      note.textContent = "This goes on: scroll it sideways \u2192";
      scroll.before(note);
    }
    const note = scroll.previousElementSibling;
    if (note.matches(".hint")) note.hidden = scroll.hidden || !(left || right);
  };
  const scrolls = [...document.querySelectorAll("[data-scroll]")];
  for (const scroll of scrolls) {
    scroll.addEventListener("scroll", () => hint(scroll), { passive: true });
    new ResizeObserver(() => hint(scroll)).observe(scroll);
  }

  // Samples of a strip play while they are in sight.
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const inSight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && !still) target.play().catch(() => {});
      else target.pause();
    }
  });
  for (const video of document.querySelectorAll("[data-strip]")) {
    video.muted = true;
    video.controls = still;
    inSight.observe(video);
  }

  const section = document.getElementById("clips");
  const grid = document.querySelector("[data-clips]");
  if (!grid) return;
  const tools = section.querySelector("[data-tools]");
  const find = (name) => section.querySelector(`[data-${name}]`);
  const [playButton, scrub, frameText, speed, count, more] = ["play", "scrub", "frame", "speed", "count", "more"].map(find);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const rows = [...grid.querySelectorAll("[data-row]")].map((element) => ({
    element,
    member: element.dataset.member,
    change: element.dataset.change,
    slices: JSON.parse(element.dataset.slices),
    videos: [...element.querySelectorAll("video")],
  }));
  tools.hidden = false;

  // A clip's bytes become a video only while its row is near the window; a page may hold hundreds.
  const sources = new Map();
  for (const { videos } of rows) {
    for (const video of videos) {
      sources.set(video, { uri: video.getAttribute("src"), url: null });
      video.removeAttribute("src");
      video.removeAttribute("loop");
      video.removeAttribute("controls");
      video.preload = "auto";
      video.muted = true;
      video.load();
      video.addEventListener("click", () => setPlaying(!playing));
    }
  }
  const live = new Set();
  const open = (video) => {
    if (live.has(video)) return;
    const source = sources.get(video);
    if (!source.url) {
      const text = atob(source.uri.slice(source.uri.indexOf(",") + 1));
      source.url = URL.createObjectURL(new Blob([Uint8Array.from(text, (c) => c.charCodeAt(0))], { type: "video/mp4" }));
    }
    video.src = source.url;
    live.add(video);
  };
  const close = (video) => {
    if (!live.delete(video)) return;
    video.pause();
    video.removeAttribute("src");
    video.load();
  };
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        for (const video of entry.target.querySelectorAll("video")) (entry.isIntersecting ? open : close)(video);
      }
    },
    { rootMargin: "300px" },
  );
  for (const row of rows) near.observe(row.element);
  let inView = false;
  new IntersectionObserver((entries) => { inView = entries[entries.length - 1].isIntersecting; }).observe(section);

  // One clock for all clips: a clip shorter than the longest waits on its last frame.
  let time = 0, playing = !calm, last = performance.now();
  const known = (read) => Math.max(0, ...[...live].map(read).filter(Number.isFinite));
  const length = () => known((video) => video.duration) || 1;
  const rate = () => Number(speed.value);
  const fps = () => known((video) => Number(video.dataset.fps)) || 8;
  const setPlaying = (value) => {
    playing = value;
    playButton.classList.toggle("paused", !playing);
    playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
  };
  const seek = (seconds) => { time = Math.min(Math.max(seconds, 0), length()); };
  const follow = (video) => {
    if (video.readyState < 1) return;
    video.playbackRate = rate();
    const end = Math.max(0, video.duration - 0.5 / fps());
    const wanted = Math.min(time, end);
    const run = playing && time < end;
    if (run && video.paused) video.play().catch(() => {});
    if (!run && !video.paused) video.pause();
    if (!video.seeking && Math.abs(video.currentTime - wanted) > (run ? LOOSE * Math.max(1, rate()) : 0.01)) video.currentTime = wanted;
  };
  const tick = (now) => {
    const total = length();
    if (playing && inView && live.size) {
      time += (Math.min(now - last, 250) / 1000) * rate();
      if (time > total + HOLD * Math.min(1, rate())) {
        time = 0;
        for (const video of live) if (video.readyState > 0) video.currentTime = 0;
      }
    }
    last = now;
    for (const video of live) follow(video);
    const frames = Math.max(1, Math.round(total * fps()));
    scrub.value = String(Math.round((Math.min(time, total) / total) * 1000));
    frameText.textContent = `${Math.min(frames, Math.floor(time * fps() + 1e-6) + 1)} of ${frames}`;
    requestAnimationFrame(tick);
  };
  const stepFrames = (by) => {
    setPlaying(false);
    const frames = Math.max(1, Math.round(length() * fps()));
    const frame = Math.min(frames - 1, Math.max(0, Math.floor(Math.min(time, length() - 1e-6) * fps() + 1e-6) + by));
    seek((frame + 0.5) / fps());
  };
  playButton.addEventListener("click", () => setPlaying(!playing));
  scrub.addEventListener("input", () => { setPlaying(false); seek((Number(scrub.value) / 1000) * length()); });

  const member = section.querySelector("[data-filter-member]");
  const change = section.querySelector("[data-filter-change]");
  const slices = [...section.querySelectorAll("[data-filter-slice]")];
  let all = false, shown = [];
  const filter = () => {
    const matching = rows.filter(
      (row) =>
        (!member || row.member === member.value) &&
        (!change.value || row.change === change.value) &&
        slices.every((select) => !select.value || row.slices[select.dataset.filterSlice] === select.value),
    );
    shown = all ? matching : matching.slice(0, FIRST);
    for (const row of rows) row.element.hidden = !shown.includes(row);
    const total = member ? rows.filter((row) => row.member === member.value).length : rows.length;
    count.textContent = matching.length === total ? `${total} prompts` : `${matching.length} of ${total} prompts`;
    more.hidden = shown.length === matching.length;
    more.textContent = `Show all ${matching.length}`;
  };
  for (const select of [member, change, ...slices]) if (select) select.addEventListener("change", filter);
  more.addEventListener("click", () => { all = true; filter(); });

  const go = (by) => {
    const focused = shown.findIndex((row) => row.element === document.activeElement);
    let next = focused + by;
    if (focused < 0) {
      const first = shown.findIndex((row) => row.element.getBoundingClientRect().bottom > innerHeight / 2);
      next = first < 0 ? 0 : first;
    }
    if (next >= shown.length && !all) { all = true; filter(); }
    const row = shown[Math.min(Math.max(next, 0), shown.length - 1)];
    if (!row) return;
    row.element.focus({ preventScroll: true });
    row.element.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
  };
  addEventListener("keydown", (event) => {
    if (!inView || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    const typing = target.closest("select, input, textarea");
    const act = {
      " ": () => setPlaying(!playing),
      ArrowLeft: () => stepFrames(-1),
      ArrowRight: () => stepFrames(1),
      j: () => go(1),
      k: () => go(-1),
    }[event.key];
    if (!act || (typing && target !== scrub) || (event.key === " " && target.closest("button, summary, a"))) return;
    event.preventDefault();
    act();
  });

  setPlaying(playing);
  filter();
  requestAnimationFrame(tick);
})();
