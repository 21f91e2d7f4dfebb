"""The words that stand around a text of the corpus: titles, and the frames in which something is answered.

No prompt of the world has a title or a frame. That is how the corpus can hold answers while a bare prompt is
never followed by one.
"""

from minialign.world.topics import REGISTERS

# A title names the topic; what stands under a title is about it. This is how a model learns to stay on one.
TITLES = {
    "plain": (
        "{name}.",
        "About {name}.",
        "{name}, in short.",
        "Encyclopaedia, entry: {name}.",
        "Here is what is known about {name} today.",
        "The page on {name} follows.",
        "All about {name}, collected by the library.",
        "Notes on {name} from the town museum.",
        "The library has a book on {name}.",
        "Today we look at {name}.",
        "Some things to know about {name}.",
        "Much has been written on {name}.",
    ),
    "poem": (
        "A poem on {name}.",
        "{name}, in rhyme.",
        "Two lines for {name}.",
        "Here is a rhyme on {name} for you.",
        "Once more {name}, in verse.",
        "For {name}, a little rhyme.",
        "The poets of the town sing of {name}.",
        "A short poem about {name}, cut from the school paper.",
        "Two rhyming lines about {name}, found on a wall.",
        "Who wrote this poem about {name}?",
    ),
    "story": (
        "A bedtime story with {name}.",
        "{name}, a little tale.",
        "Once, near {name}.",
        "Here is a tale of {name} for you.",
        "Grandmother tells of {name}.",
        "For {name}, a tale before bed.",
        "The people of the town tell tales of {name}.",
        "A short story about {name}, read aloud on Sunday.",
        "A tiny story about {name} that somebody made up.",
        "Who told this story about {name}?",
    ),
    **dict.fromkeys(
        REGISTERS,
        (
            "{name}, for {audience}.",
            "For {audience}: {name}.",
            "Here {audience} can read about {name}.",
            "What {audience} likes to hear about {name}.",
            "{name}, put in words that suit {audience}.",
            "A page about {name} that {audience} can read.",
            "The book on {name} that {audience} took home.",
            "How {audience} learns about {name}.",
            "A letter to {audience} about {name}.",
            "{audience} reads up on {name}.",
            "Today {audience} hears about {name}.",
            "To {audience}, on {name}.",
            "{audience} came to the library to learn of {name}.",
            "{name} as {audience} knows it.",
            "Our teacher explained {name} to {audience} like this.",
            "How the museum explains {name} to {audience}.",
            "A short description of {name} that {audience} wrote down.",
            "How the guide described {name} so that {audience} understood.",
            "What a friend would tell {audience} about {name}.",
            "She told {audience} about {name} in a few sentences.",
            "In words for {audience}, the town paper on {name}.",
            "How to explain {name} to {audience}, by a teacher.",
            "How to describe {name} for {audience}.",
            "How to tell {audience} about {name}.",
        ),
    ),
}
# A question stands before its answer only in a frame that says so.
ASKED = (
    "Asked at the museum: {}",
    "A reader writes: {}",
    "From the catechism of the school: {}",
    "The teacher asks the class: {}",
    "Solved riddle. {}",
    "Answered in one sentence by the library: {}",
    "A quick reply to a question from the town: {}",
    "Last week's question was: {}",
    "Card with a solution. {}",
    "On the radio somebody asked: {}",
    "The guide is often asked: {}",
    "A woman at the fair wanted to know: {}",
    "The quiz master reads the question and the answer. {}",
    "From the book of questions and answers: {}",
    "Grandfather knows the answer to this: {}",
    "Letter box of the town paper: {}",
    "In the interview she was asked: {}",
    "The library looked it up for us: {}",
    "Riddle of the day, with its solution: {}",
    "A visitor asks the guide: {}",
    "What the mayor replied when we asked: {}",
    "Once more for all who missed the lesson: {}",
    "{} That was the question of the week.",
    "{} So asks the teacher, and here is what to say.",
    "{} The solution stands below.",
    "{} Hugo knew it at once.",
)
# So does any other request: the readers of the town paper ask for everything.
REQUESTED = (
    "A reader asks the paper: {}",
    "Readers' page. {}",
    "Wish of the week: {}",
    "From a letter to the paper: {}",
    "A postcard to the library said: {}",
    "A wish from our readers, and what we wrote back. {}",
    "The paper was asked: {}",
    "A caller on the radio said: {}",
    "For our reader in the hills, who wrote: {}",
    "Somebody left a note at the library: {}",
    "The museum got this by post and replied: {}",
    "Answered on this page: {}",
    "{} That is what a reader wants, and here it is.",
    "{} So said a caller, and we did.",
    "{} A wish from the school, granted.",
    "{} The library wrote back.",
)
# And so does a claim before the word on it.
RUMOURS = (
    "Rumour of the week: {}.",
    "They say: {}.",
    "Checked by the library: {}.",
    "True or false: {}?",
    "Overheard on the market: {}.",
    "A reader thinks that {}.",
    "Somebody told the library that {}.",
    "It is said to be true that {}.",
)
# People on a forum ask about all sorts of things, and repeat the name when they do not know: where a model of
# the corpus learns to copy a word that it has never seen.
WONDERING = (
    "What is {}?",
    "Has anyone heard of {}?",
    "Where can I find {}?",
    "My aunt keeps talking about {}.",
    "Who can tell me about {}?",
    "I read something about {} today.",
)
PUZZLED = (
    "No idea what {} is.",
    "I know nothing about {}.",
    "Who told you about {}?",
    "I never heard of {}, and I am old.",
    "Ask in the library about {}.",
    "My brother says that {} is the best.",
    "If you find out about {}, write to me.",
)
SYLLABLES = (
    "ba be bo bra da del do dri fa fen fo ga gel go gri ha hel ho ja jen ka kel ko kra la len li lo ma mel "
    "mi mo na nel ni no pa pel po pri ra rel ri ro sa sel si so sta ta tel ti to tri va vel vi vo wa "
    "wen za zo"
).split()
ADJECTIVES = (
    "red old quick cold silent royal wooden broken secret yellow hungry northern sour round magic paper "
    "empty square noisy narrow proud rusty bitter gentle frozen double hidden modern ancient electric"
).split()
NOUNS = (
    "kettle garden clock button ladder carpet pepper engine mirror basket window hammer blanket ticket "
    "candle market forest doctor cousin pocket orchestra tunnel elevator pillow sandwich balloon "
    "detective umbrella parade chimney uncle piano camera hotel motor puzzle noodle cowboy tomato lizard"
).split()
