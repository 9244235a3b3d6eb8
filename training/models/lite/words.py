"""Common words that ImageNet has no class for, and the classes whose photos show them.

ImageNet knows 1000 things and hardly any stuff: no sky, no road, no person. Its photos
show them all the same, behind the airliner and around the parking meter, and a classifier
answers with those classes there. `lite_alignment.py` turns every row into one point of the
text space.

Both tables are general knowledge. `CONTEXT_CLASSES` was written from the list of class names
alone, before any photo, model answer or label was looked at, and was not changed after its
measurement; whoever edits it should do so in the same way, or CamVid's score means nothing.
"""

from __future__ import annotations

__all__ = ["CONTEXT_CLASSES", "GROUP_CLASSES"]

# Word -> ImageNet class names (first synonym), or an index where two classes share a name
# (517 is the machine called crane, 638 a maillot).
CONTEXT_CLASSES: dict[str, str] = {
    "sky": (
        "kite,parachute,airship,wing,airliner,balloon,warplane,albatross,flagpole,bald eagle,517,"
        "missile,vulture,obelisk"
    ),
    "cloud": "wing,airship,parachute,airliner,warplane,volcano,geyser,alp,kite,balloon,space shuttle",
    "tree": (
        "fox squirrel,koala,three-toed sloth,birdhouse,howler monkey,orangutan,siamang,gibbon,indri,"
        "langur,great grey owl,lakeside,hornbill"
    ),
    "forest": (
        "valley,lakeside,American black bear,brown bear,gorilla,titi,ruffed grouse,gibbon,orangutan,"
        "lumbermill,indri,howler monkey,suspension bridge"
    ),
    "bush": (
        "maze,hip,buckeye,bulbul,greenhouse,black and gold garden spider,green mamba,worm fence,vine snake"
    ),
    "leaves": (
        "vine snake,walking stick,green mamba,leafhopper,leaf beetle,buckeye,fig,tree frog,"
        "American chameleon,custard apple,acorn,mantis,green snake,jackfruit"
    ),
    "grass": (
        "lawn mower,croquet ball,golf ball,prairie chicken,grasshopper,hare,bustard,wood rabbit,"
        "golfcart,garter snake,soccer ball,ram,rugby ball"
    ),
    "field": (
        "hay,rapeseed,harvester,valley,tractor,plow,thresher,corn,bustard,ox,prairie chicken,worm fence,barn"
    ),
    "flower": (
        "daisy,bee,yellow lady's slipper,cardoon,rapeseed,sulphur butterfly,cabbage butterfly,monarch,"
        "hummingbird,admiral,vase,greenhouse,pot,ringlet"
    ),
    "plant": (
        "pot,greenhouse,cardoon,artichoke,corn,head cabbage,rapeseed,ear,yellow lady's slipper,"
        "leafhopper,lycaenid,vase,mantis"
    ),
    "hill": (
        "valley,alp,megalith,ram,volcano,promontory,monastery,castle,worm fence,ibex,lakeside,mountain bike"
    ),
    "mountain": "alp,volcano,valley,cliff,ibex,bighorn,mountain tent,ski,lakeside,monastery,yurt",
    "rock": (
        "cliff,megalith,marmot,ibex,chiton,bighorn,rock crab,promontory,stone wall,cliff dwelling,agama,"
        "snow leopard,trilobite,baboon"
    ),
    "sand": (
        "sandbar,sidewinder,horned viper,Arabian camel,seashore,fiddler crab,loggerhead,"
        "leatherback turtle,hermit crab,tiger beetle,sundial,meerkat,dung beetle"
    ),
    "beach": (
        "sandbar,seashore,leatherback turtle,loggerhead,red-backed sandpiper,swimming trunks,bikini,"
        "ruddy turnstone,oystercatcher,sarong,hermit crab,fiddler crab,promontory"
    ),
    "sea": (
        "seashore,grey whale,promontory,albatross,sandbar,catamaran,trimaran,breakwater,killer whale,"
        "yawl,beacon,container ship,drilling platform,submarine"
    ),
    "river": (
        "dam,canoe,gondola,lakeside,water ouzel,paddle,steel arch bridge,paddlewheel,hippopotamus,"
        "viaduct,beaver,suspension bridge,fireboat,American alligator"
    ),
    "lake": (
        "lakeside,American coot,drake,boathouse,canoe,black swan,red-breasted merganser,dock,goose,"
        "beaver,valley,European gallinule,speedboat"
    ),
    "water": (
        "lakeside,grey whale,American coot,seashore,killer whale,snorkel,otter,sea lion,canoe,dugong,"
        "dowitcher,sandbar,speedboat,red-breasted merganser"
    ),
    "snow": (
        "snowplow,snowmobile,dogsled,ski,ptarmigan,alp,Arctic fox,bobsled,Siberian husky,white wolf,"
        "ice bear,Eskimo dog,lynx,shovel"
    ),
    "glacier": "alp,ice bear,volcano,valley,mountain tent,king penguin,ptarmigan",
    "ice": "ice bear,puck,ice lolly,bobsled,alp,king penguin,Arctic fox,snowplow,dogsled",
    "soil": (
        "earthstar,trilobite,dung beetle,plow,wolf spider,centipede,shovel,ant,mongoose,warthog,"
        "armadillo,ground beetle,scorpion,wombat"
    ),
    "smoke": (
        "volcano,geyser,steam locomotive,missile,cannon,projectile,space shuttle,fire engine,fireboat,"
        "torch,gasmask,rotisserie"
    ),
    "fire": (
        "torch,matchstick,candle,volcano,fire screen,lighter,jack-o'-lantern,stove,caldron,rotisserie,"
        "fire engine,space heater"
    ),
    "building": (
        "palace,cinema,prison,library,dome,monastery,bell cote,castle,church,triumphal arch,mosque,"
        "traffic light,planetarium"
    ),
    "house": (
        "mobile home,boathouse,barn,tile roof,thatch,picket fence,birdhouse,patio,mailbox,sliding door,"
        "church,bell cote"
    ),
    "skyscraper": (
        "517,obelisk,beacon,traffic light,suspension bridge,cinema,streetcar,trolleybus,water tower"
    ),
    "road": (
        "moving van,trailer truck,cab,motor scooter,police van,racer,mountain bike,convertible,"
        "bicycle-built-for-two,snowplow,minivan,beach wagon,car mirror,street sign"
    ),
    "street": (
        "cab,streetcar,trolleybus,traffic light,street sign,jinrikisha,parking meter,minibus,limousine,"
        "police van,motor scooter,moped,garbage truck,moving van"
    ),
    "sidewalk": (
        "manhole cover,parking meter,mailbox,ashcan,park bench,pay-phone,doormat,crutch,unicycle,"
        "street sign,cash machine,tricycle,stretcher"
    ),
    "parking lot": (
        "parking meter,shopping cart,minivan,beach wagon,pickup,convertible,recreational vehicle,"
        "limousine,sports car,minibus,gas pump,tow truck,jeep"
    ),
    "fence": "picket fence,chainlink fence,worm fence,stone wall,prison,turnstile,window screen,barn,maze",
    "railing": (
        "bannister,picket fence,worm fence,pier,suspension bridge,parallel bars,turnstile,"
        "chainlink fence,patio,horizontal bar,dock,viaduct"
    ),
    "pole": (
        "flagpole,totem pole,pole,parking meter,traffic light,street sign,horizontal bar,maypole,swing,"
        "birdhouse,obelisk,spotlight"
    ),
    "traffic sign": "street sign,traffic light,parking meter,scoreboard,school bus,snowplow",
    "traffic light": (
        "traffic light,street sign,parking meter,spotlight,streetcar,trolleybus,cab,pole,flagpole"
    ),
    "street lamp": (
        "spotlight,traffic light,torch,flagpole,lampshade,beacon,street sign,pole,bell cote,"
        "parking meter,table lamp"
    ),
    "bridge": "steel arch bridge,suspension bridge,viaduct,pier,dam,triumphal arch,gondola,dock,fireboat,517",
    "wall": "stone wall,prison,cliff dwelling,switch,brass,wall clock,vault,maze,castle,radiator,shoji",
    "brick wall": (
        "stone wall,tile roof,prison,fire screen,maze,bell cote,rotisserie,library,mailbox,pay-phone,"
        "cliff dwelling,viaduct"
    ),
    "roof": (
        "tile roof,thatch,dome,barn,boathouse,yurt,church,palace,mobile home,bell cote,birdhouse,"
        "monastery,solar dish"
    ),
    "stone": (
        "stone wall,megalith,cliff dwelling,cliff,obelisk,pedestal,mortar,brass,castle,triumphal arch,"
        "sundial,monastery,trilobite,fountain"
    ),
    "column": (
        "pedestal,palace,obelisk,triumphal arch,vault,altar,monastery,totem pole,library,dome,throne,"
        "stupa,organ"
    ),
    "floor": (
        "doormat,vacuum,prayer rug,swab,broom,bannister,pool table,studio couch,ping-pong ball,crutch,"
        "plunger,dumbbell,tub"
    ),
    "wooden floor": (
        "bannister,rocking chair,barbell,folding chair,vacuum,broom,basketball,grand piano,chiffonier,"
        "upright,plane,sliding door,potter's wheel,punching bag"
    ),
    "tiles": (
        "toilet seat,washbasin,bathtub,tub,shower curtain,tile roof,swab,prayer rug,soap dispenser,"
        "crossword puzzle,medicine chest,stove,paper towel,jigsaw puzzle"
    ),
    "carpet": "prayer rug,doormat,vacuum,velvet,wool,quilt,throne,entertainment center,studio couch,crib",
    "ceiling": (
        "vault,dome,spotlight,planetarium,library,electric fan,home theater,lampshade,stage,greenhouse,"
        "projector"
    ),
    "window": (
        "window shade,window screen,shoji,sliding door,bell cote,fire screen,theater curtain,"
        "passenger car,prison,greenhouse,medicine chest,mobile home,church"
    ),
    "door": (
        "sliding door,wardrobe,prison,shoji,safe,refrigerator,combination lock,doormat,barn,"
        "cash machine,padlock,cinema,china cabinet,medicine chest"
    ),
    "stairs": (
        "bannister,library,stupa,monastery,cliff dwelling,palace,turnstile,throne,stone wall,pedestal,"
        "triumphal arch"
    ),
    "curtain": (
        "theater curtain,shower curtain,window shade,velvet,mosquito net,four-poster,stage,shoji,"
        "window screen,home theater,bassinet"
    ),
    "table": (
        "dining table,desk,pool table,restaurant,tray,pedestal,patio,ping-pong ball,wooden spoon,"
        "folding chair,chest,menu"
    ),
    "chair": (
        "rocking chair,folding chair,throne,barber chair,studio couch,dining table,park bench,patio,"
        "desk,restaurant,barbershop,cradle"
    ),
    "sofa": (
        "studio couch,rocking chair,pillow,entertainment center,home theater,quilt,throne,park bench,"
        "velvet,folding chair,barber chair"
    ),
    "bed": (
        "quilt,four-poster,studio couch,pillow,crib,bassinet,cradle,mosquito net,sleeping bag,stretcher,"
        "pajama,diaper"
    ),
    "cushion": (
        "pillow,studio couch,quilt,sleeping bag,velvet,rocking chair,wool,prayer rug,throne,four-poster,purse"
    ),
    "blanket": (
        "quilt,wool,sleeping bag,poncho,bath towel,velvet,pillow,stole,prayer rug,bassinet,crib,four-poster"
    ),
    "towel": "bath towel,dishrag,paper towel,handkerchief,diaper,wool,quilt,washbasin,prayer rug,bib,swab",
    "shelf": (
        "bookcase,plate rack,bookshop,china cabinet,grocery store,shoe shop,library,wardrobe,"
        "tobacco shop,medicine chest,toyshop,entertainment center,confectionery,refrigerator"
    ),
    "cupboard": (
        "china cabinet,chiffonier,wardrobe,medicine chest,file,bookcase,desk,entertainment center,"
        "refrigerator,dishwasher,chest,plate rack"
    ),
    "kitchen counter": (
        "microwave,stove,dishwasher,toaster,espresso maker,refrigerator,plate rack,waffle iron,"
        "Crock Pot,coffeepot,rotisserie,washbasin,dining table"
    ),
    "sink": (
        "washbasin,soap dispenser,tub,bathtub,dishwasher,toilet seat,medicine chest,plate rack,plunger,"
        "strainer"
    ),
    "mirror": (
        "medicine chest,car mirror,washbasin,chiffonier,barbershop,barber chair,wardrobe,face powder,"
        "sunglasses,loupe"
    ),
    "lamp": "lampshade,table lamp,spotlight,torch,candle,jack-o'-lantern,lighter,projector",
    "picture": (
        "book jacket,jigsaw puzzle,comic book,web site,envelope,fire screen,television,tray,packet,"
        "screen,prayer rug"
    ),
    "book": (
        "book jacket,comic book,bookshop,bookcase,library,binder,notebook,crossword puzzle,menu,"
        "envelope,wallet"
    ),
    "paper": (
        "envelope,crossword puzzle,menu,paper towel,web site,toilet tissue,book jacket,fountain pen,"
        "rubber eraser,binder,rule,quill,ballpoint,pinwheel"
    ),
    "screen": (
        "screen,monitor,television,web site,desktop computer,laptop,notebook,home theater,"
        "hand-held computer,oscilloscope,cellular telephone,iPod,scoreboard,entertainment center"
    ),
    "keyboard": (
        "computer keyboard,space bar,typewriter keyboard,notebook,laptop,mouse,desktop computer,"
        "hand-held computer,desk,remote control"
    ),
    "cup": "cup,coffee mug,espresso,measuring cup,goblet,eggnog,beer glass,teapot,beaker,consomme,pitcher",
    "plate": (
        "plate,plate rack,carbonara,dining table,soup bowl,Petri dish,meat loaf,burrito,mashed potato,hot pot"
    ),
    "bowl": (
        "soup bowl,mixing bowl,consomme,mortar,hot pot,wok,measuring cup,guacamole,potter's wheel,"
        "strainer,mashed potato,tub"
    ),
    "bottle": (
        "beer bottle,wine bottle,pop bottle,water bottle,whiskey jug,pill bottle,lotion,red wine,"
        "perfume,water jug,cocktail shaker,sunscreen,hair spray,nipple"
    ),
    "food": (
        "plate,meat loaf,burrito,restaurant,potpie,carbonara,hot pot,mashed potato,pizza,guacamole,"
        "cheeseburger,grocery store,wok,tray"
    ),
    "meat": "butcher shop,meat loaf,rotisserie,hotdog,cheeseburger,cleaver,burrito,frying pan,plate,potpie",
    "bread": (
        "French loaf,bakery,bagel,pretzel,dough,toaster,cheeseburger,hotdog,meat loaf,waffle iron,potpie"
    ),
    "fruit": (
        "orange,Granny Smith,strawberry,pomegranate,fig,lemon,banana,custard apple,pineapple,jackfruit,"
        "grocery store,hip"
    ),
    "vegetable": (
        "zucchini,cucumber,head cabbage,bell pepper,broccoli,cauliflower,grocery store,artichoke,"
        "acorn squash,butternut squash,spaghetti squash,cardoon,mushroom,corn"
    ),
    "cake": "trifle,chocolate sauce,bakery,confectionery,ice cream,meat loaf,bagel,dough,potpie",
    "soup": "consomme,soup bowl,hot pot,potpie,caldron,ladle,wok,Crock Pot,mixing bowl,Dutch oven",
    "person": (
        "jean,sweatshirt,jersey,suit,lab coat,cardigan,backpack,groom,miniskirt,trench coat,ballplayer,"
        "unicycle,academic gown,stretcher"
    ),
    "man": (
        "suit,groom,Windsor tie,bow tie,military uniform,sweatshirt,jersey,bulletproof vest,cowboy hat,"
        "ballplayer,swimming trunks,lab coat,sax"
    ),
    "woman": (
        "miniskirt,gown,bikini,cardigan,brassiere,sarong,wig,abaya,feather boa,overskirt,stole,kimono,"
        "638,lipstick"
    ),
    "child": (
        "bib,diaper,swing,tricycle,pajama,cradle,nipple,bonnet,crib,toyshop,jersey,bassinet,swimming trunks"
    ),
    "pedestrian": (
        "jean,trench coat,backpack,miniskirt,crutch,umbrella,purse,abaya,sweatshirt,mailbag,suit,"
        "running shoe,plastic bag,jinrikisha"
    ),
    "crowd": (
        "stage,academic gown,mortarboard,scoreboard,balance beam,maypole,bearskin,military uniform,"
        "basketball,turnstile,parallel bars,torch,jinrikisha,restaurant"
    ),
    "face": (
        "wig,sunglasses,sunglass,mask,lipstick,neck brace,ski mask,hair slide,face powder,bow tie,"
        "shower cap,gasmask,Band Aid,bonnet"
    ),
    "hand": (
        "Band Aid,lighter,ballpoint,cellular telephone,syringe,hand-held computer,iPod,matchstick,"
        "thimble,mitten,ringneck snake,pick,digital watch,face powder"
    ),
    "bicyclist": (
        "bicycle-built-for-two,mountain bike,crash helmet,unicycle,tricycle,backpack,jersey,knee pad,"
        "moped,running shoe,jinrikisha"
    ),
    "motorcyclist": (
        "crash helmet,motor scooter,moped,knee pad,bulletproof vest,go-kart,gasmask,sunglasses,snowmobile"
    ),
    "car": (
        "beach wagon,sports car,convertible,minivan,cab,limousine,grille,car wheel,racer,jeep,pickup,"
        "car mirror,Model T,police van"
    ),
    "truck": (
        "trailer truck,moving van,garbage truck,tow truck,pickup,fire engine,police van,half track,"
        "snowplow,recreational vehicle,forklift,ambulance"
    ),
    "bus": (
        "trolleybus,minibus,school bus,streetcar,recreational vehicle,passenger car,police van,"
        "limousine,ambulance,moving van"
    ),
    "train": (
        "electric locomotive,passenger car,bullet train,freight car,steam locomotive,streetcar,"
        "trolleybus,viaduct"
    ),
    "bicycle": (
        "mountain bike,bicycle-built-for-two,tricycle,unicycle,moped,jinrikisha,disk brake,car wheel,"
        "barrow,crash helmet"
    ),
    "motorcycle": (
        "moped,motor scooter,disk brake,crash helmet,go-kart,snowmobile,mountain bike,tricycle,car wheel"
    ),
    "boat": (
        "canoe,speedboat,catamaran,yawl,schooner,dock,gondola,trimaran,lifeboat,fireboat,paddle,"
        "boathouse,liner,wreck"
    ),
    "airplane": "airliner,warplane,wing,space shuttle,airship,aircraft carrier,missile,projectile,amphibian",
    "metal": (
        "steel drum,shield,breastplate,cuirass,manhole cover,safe,chain,grille,milk can,radiator,screw,"
        "bucket,spatula,hook"
    ),
    "plastic": (
        "plastic bag,bucket,water jug,crate,packet,soap dispenser,lens cap,pencil sharpener,pop bottle,"
        "lotion,shopping basket,vacuum,hair spray,toilet seat"
    ),
    "cloth": (
        "velvet,handkerchief,wool,quilt,sarong,dishrag,jean,bath towel,stole,theater curtain,apron,"
        "poncho,cloak,sweatshirt"
    ),
    "leather": (
        "wallet,purse,holster,cowboy boot,buckle,Loafer,mailbag,studio couch,binder,punching bag,clog,"
        "baseball,muzzle,bolo tie"
    ),
    "wood": (
        "chest,plane,chiffonier,lumbermill,crate,desk,wardrobe,barrel,picket fence,barn,wooden spoon,"
        "nail,worm fence,carpenter's kit"
    ),
    "cable": (
        "hard disc,modem,switch,knot,coil,suspension bridge,loudspeaker,517,trolleybus,hook,chain,"
        "power drill,electric guitar"
    ),
}

# Word -> ImageNet class indices, "first-last" or single: WordNet's hypernyms.
GROUP_CLASSES: dict[str, str] = {
    "fish": "0-6 389-397",
    "bird": "7-24 80-100 127-146",
    "frog": "30-32",
    "turtle": "33-37",
    "lizard": "38-48",
    "snake": "52-68",
    "spider": "72-77",
    "crab": "118-121",
    "dog": "151-268",
    "wolf": "269-272",
    "fox": "277-280",
    "cat": "281-285",
    "bear": "294-297",
    "insect": "300-326",
    "butterfly": "321-326",
    "rabbit": "330-332",
    "monkey": "370-382",
    "ape": "365-369",
    "elephant": "385-386",
    "cow": "345-347",
    "sheep": "348-349",
    "deer": "351-353",
    "pig": "341-343",
    "boat": "472 484 510 554 576 625 628 724 780 814 871 914",
    "airplane": "404 895",
    "musical instrument": (
        "401 402 420 432 486 541 546 558 566 577 579 593 594 642 683 684 776 822 875 881 889"
    ),
    "furniture": "423 453 493 516 520 526 532 548 553 559 564 648 765 831 846 857 894",
    "fruit": "948-957",
    "vegetable": "936-946",
    "mushroom": "947 991-997",
    "clothing": (
        "400 433 439 445 459 474 501 529 568 578 608 610 614 617 638 639 652 655 697 735 "
        "775 824 834 841 842 869"
    ),
    "shoe": "502 514 630 770 774",
    "ball": "429 430 522 574 722 768 805 852 890",
    "hat": "439 452 515 808",
    "bag": "414 636 728 748",
    "bottle": "440 720 737 898 899 907",
    "clock": "409 530 531 826 892",
    "shop": "415 424 454 467 582 762 788 860 865",
    "bread": "930 931 932",
    "computer": "527 590 620 664 681 782",
}
