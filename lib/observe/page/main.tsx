/** Where the page begins. */
import { render } from 'preact';
import { App } from './app.tsx';
import { connect } from './live.ts';

const place = document.getElementById('app');
if (place !== null) {
  place.replaceChildren();
  render(<App />, place);
  void connect();
}
