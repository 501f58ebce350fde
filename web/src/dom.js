// Building elements: el("button", { class: "primary", onclick }, "Join").

/** @returns {HTMLElement} an element with attributes, listeners (`on…`) and children. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Says something to screen readers without moving focus. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
