/** Shows the drawing of a transport, marks states and arrows in it, and makes its states buttons. */
const NARROW = 900;

/**
 * Make the drawings, of which one is shown.
 * @param {HTMLElement} frame the element that holds the drawing of each transport
 * @param {(state: string) => void} onState called when a state is chosen
 */
export function makeDiagram(frame, onState) {
  const drawings = [...frame.querySelectorAll("svg.drawing")];
  for (const state of frame.querySelectorAll("g.state")) {
    state.addEventListener("click", () => onState(state.dataset.state));
    state.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault(); // a blank would scroll the frame
      onState(state.dataset.state);
    });
  }
  return { show: (transport, marks) => show(drawings, transport, marks) };
}

/** Return whether the page has one column, in which the drawing stands above the view. */
export function isNarrow() {
  return window.innerWidth <= NARROW;
}

/**
 * Make the buttons of the drawing work: one for its whole width or its natural size, one that hides it.
 * @returns {(view: string) => void} called with the name of each view that is shown
 */
export function makeTools(frame, zoom, fold) {
  const fit = (whole) => {
    frame.classList.toggle("fits", whole);
    zoom.setAttribute("aria-pressed", String(whole));
  };
  let chosen;
  const hide = (hidden) => {
    frame.hidden = zoom.hidden = hidden;
    fold.setAttribute("aria-expanded", String(!hidden));
    fold.textContent = hidden ? "Show the drawing" : "Hide the drawing";
  };
  fit(true);
  zoom.addEventListener("click", () => fit(!frame.classList.contains("fits")));
  fold.addEventListener("click", () => {
    chosen = !frame.hidden;
    hide(chosen);
  });
  // In one column the drawing would move what a walk is made with far down.
  return (view) => hide(isNarrow() && (chosen ?? view === "simulate"));
}

/**
 * Show the drawing of a transport with its marks.
 * @param {{current?: string, states?: string[], from?: string, trigger?: string}} marks the chosen state; states to point
 *   out; the state whose arrows are followed; the trigger whose arrows are followed
 */
function show(drawings, transport, marks = {}) {
  for (const drawing of drawings) {
    const shown = drawing.dataset.transport === transport;
    drawing.toggleAttribute("hidden", !shown);
    if (shown) mark(drawing, marks);
  }
}

function mark(drawing, { current, states = [], from, trigger }) {
  for (const state of drawing.querySelectorAll("g.state")) {
    const name = state.dataset.state;
    state.classList.toggle("current", name === current);
    state.classList.toggle("pointed", states.includes(name));
    state.setAttribute("aria-pressed", String(name === current));
  }
  const follows = Boolean(from ?? trigger);
  drawing.classList.toggle("following", follows);
  for (const arrow of drawing.querySelectorAll("g.arrow")) {
    const leaves = !from || arrow.dataset.sources.split(" ").includes(from);
    const fires = !trigger || JSON.parse(arrow.dataset.triggers).includes(trigger);
    arrow.classList.toggle("followed", follows && leaves && fires);
  }
}

/** Scroll a state into the view of its frame. */
export function reveal(frame, state) {
  const found = frame.querySelector(`svg.drawing:not([hidden]) g.state[data-state="${CSS.escape(state)}"]`);
  if (!found) return;
  const box = found.getBoundingClientRect();
  const outer = frame.getBoundingClientRect();
  frame.scrollBy(box.left - outer.left - (outer.width - box.width) / 2, box.top - outer.top - (outer.height - box.height) / 2);
}
