// The icons of the controls: 24 by 24, drawn in the current colour.

const paths = {
  mic: '<rect x="9" y="3" width="6" height="11" rx="3"/><path d="M5 11a7 7 0 0 0 14 0M12 18v3"/>',
  micOff: '<path d="M15 10V6a3 3 0 0 0-5.9-.8M9 9v2a3 3 0 0 0 4.5 2.6M5 11a7 7 0 0 0 10.8 5.9M19 11a7 7 0 0 1-.6 2.8M12 18v3M3 3l18 18"/>',
  camera: '<rect x="3" y="6" width="12" height="12" rx="2"/><path d="m15 10.5 6-3.5v10l-6-3.5"/>',
  cameraOff: '<path d="M9.5 6H13a2 2 0 0 1 2 2v3.5m0 2.5v2a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V8a2 2 0 0 1 1.5-1.9M15 10.5l6-3.5v10l-3-1.8M3 3l18 18"/>',
  screen: '<rect x="3" y="4" width="18" height="12" rx="2"/><path d="M8 20h8M12 13V7m-3 3 3-3 3 3"/>',
  chat: '<path d="M4 5h16v11H9l-5 4z"/>',
  people: '<circle cx="9" cy="8" r="3.5"/><path d="M2.5 20a6.5 6.5 0 0 1 13 0M16 4.8a3.5 3.5 0 0 1 0 6.4M18 14.5a6.5 6.5 0 0 1 3.5 5.5"/>',
  link: '<path d="M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7l-1 1M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7l1-1"/>',
  leave: '<path d="M3 13.5c5-5 13-5 18 0l-2.2 2.7-3.8-1.5v-2.5a12 12 0 0 0-6 0v2.5l-3.8 1.5z"/>',
  close: '<path d="m6 6 12 12M18 6 6 18"/>',
  send: '<path d="M4 12 20 4l-5 16-3.5-6.5zM20 4l-8.5 9.5"/>',
};

/** @returns {SVGElement} an icon that screen readers pass over. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  svg.innerHTML = paths[name];
  return svg;
}
