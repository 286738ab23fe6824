// Signals from the modules to page.js, which knows what is read and drawn after each of them. So no module needs to
// import one that draws something else.
//
//   select (name)        the details of this breaker are wanted
//   close                the details are not wanted any more
//   filter               the filter has changed
//   refresh (delay)      figures are missing or outdated
//   instances            nodes of instances have become known
//   authorized           the user has given a token
//   overview, hello, gap, change (event), disconnected: from the stream

const signals = new EventTarget();

export const emit = (name, detail) => signals.dispatchEvent(new CustomEvent(name, { detail }));
export const on = (name, act) => signals.addEventListener(name, ({ detail }) => act(detail));
