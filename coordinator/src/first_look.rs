//! Looks at the first rows of each input before the job begins. A field name that no row has then stops the
//! job before it uses up its output directory.

use baton_formats::{CheckError, InputFailure, InputFailureCause, KeptColumns, check_fields};
use baton_job::JobError;
use futures_util::stream;
use futures_util::{StreamExt, TryStreamExt};

use crate::reader::Tally;
use crate::source::open_source;
use crate::{CoordinatorError, PreparedJob};

/// Inputs looked at at once, where many are: hides the latency of an object store.
const CONCURRENT_LOOKS: usize = 32;

impl PreparedJob {
    /// Looks at every input and returns the columns that its rows keep; `None` if each row has its own
    /// fields. A broken input does not stop the job: the other inputs are processed, and the end of the
    /// job names it.
    ///
    /// # Errors
    /// An input has not the fields that the job names, or cannot be reached.
    pub(crate) async fn look_at_inputs(&self) -> Result<Vec<Option<KeptColumns>>, CoordinatorError> {
        let options = self.spec.reader_options();
        let look = |input: baton_store::InputFile| {
            let (options, format) = (options.clone(), self.spec.format);
            let stored = self.spool.as_ref().map_or(&input, |spool| &spool.stored).clone();
            async move {
                let source = open_source(&input.uri, &stored, format, Tally::unwatched()).await?;
                let check = move || check_fields(&input.uri, source, &options);
                match tokio::task::spawn_blocking(check).await.expect("a look does not panic") {
                    Ok(columns) => Ok(Some(columns)),
                    Err(CheckError::Field(wrong)) => Err(CoordinatorError::WrongField(wrong)),
                    Err(CheckError::Format(error)) => Err(JobError::from(error).into()),
                    Err(CheckError::Input(InputFailure {
                        uri,
                        cause: InputFailureCause::Content(why),
                        ..
                    })) => {
                        tracing::warn!(input = uri, reason = why, "an input is broken");
                        Ok(None)
                    }
                    Err(CheckError::Input(failure)) => Err(failure.into()),
                    Err(other) => Err(CoordinatorError::Look { source: Box::new(other) }),
                }
            }
        };
        let looks = stream::iter(self.inputs.iter().cloned().map(look));
        let looks = looks.buffered(CONCURRENT_LOOKS).try_collect::<Vec<_>>().await?;
        Ok(looks.into_iter().flatten().collect())
    }
}
