//! The metadata learn, from the controller, what marks brokers have left in their directories.

use firn_metadata::decide::brokers::note_marks;
use firn_metadata::image::Image;
use firn_quorum::quorum::Quorum;

use super::heard::Heard;

/// Notes those that are news, of all brokers in one change, while this broker is the controller.
pub(super) async fn note(heard: &Heard, quorum: &Quorum) {
    let Some(marks) = heard.marks_to_note().filter(|_| quorum.progress().leads) else { return };
    if note_marks(&quorum.image(), &marks).records.is_empty() {
        return;
    }
    match quorum.propose(|image: &Image| Ok(note_marks(image, &marks))).await {
        Ok(()) => heard.marks_are_noted(),
        Err(error) => tracing::debug!(%error, "marks of brokers are not noted yet"),
    }
}
